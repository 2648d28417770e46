import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// What is told of a room to whom.
@Suite struct RoomNewsTests {
    private func news(_ offset: Offset, by sender: UserID) -> RoomNews {
        RoomNews(
            position: Position(epoch: 1, offset: offset), sender: sender, time: 100 + offset, expiry: 0,
            payload: ByteBuffer(string: "\(sender) \(offset)"), mostConfirmed: 8)
    }

    @Test func aDeviceThatIsBehindTakesNothingBackThatAnotherConfirmed() {
        var news = news(5, by: ann)
        news.confirm(bob, Position(epoch: 1, offset: 5))
        // The tablet comes behind the phone, and one speaks of another life of the log.
        news.confirm(bob, Position(epoch: 1, offset: 2))
        #expect(news.isKnown(to: bob))
        news.confirm(bob, Position(epoch: 9, offset: 7))
        #expect(news.isKnown(to: bob))
        news.add(
            position: Position(epoch: 1, offset: 6), sender: ann, time: 106, expiry: 0, payload: nil)
        #expect(!news.isKnown(to: bob), "he has what was there before")
        news.confirm(bob, Position(epoch: 1, offset: 6))
        #expect(news.isKnown(to: bob))
    }
}
