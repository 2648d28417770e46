import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let dave = identifier { try UserID("dave") }
private let hall = identifier { try RoomID("hall") }

/// What is told of a room to whom.
@Suite struct RoomNewsTests {
    private func message(_ offset: Offset, by sender: UserID, expiry: UInt64 = 0) -> RoomNews.Message {
        RoomNews.Message(
            position: Position(epoch: 1, offset: offset), sender: sender, time: 100 + offset, since: 100 + offset,
            expiry: expiry,
            payload: ByteBuffer(string: "\(sender) \(offset)"))
    }

    /// Messages whose places count from 1.
    private func news(_ senders: UserID...) -> RoomNews {
        var news = RoomNews(message(1, by: senders[0]), mostConfirmed: 8)
        for (index, sender) in senders.enumerated().dropFirst() { news.add(message(Offset(index + 1), by: sender)) }
        return news
    }

    private func told(_ news: RoomNews, _ member: UserID) throws -> PendingNotification? {
        news.notification(
            for: member, in: ChannelKey(tenant: identifier { try TenantID("acme") }, channel: .room(hall)))
    }

    @Test func aDeviceThatIsBehindTakesNothingBackThatAnotherConfirmed() {
        var news = news(ann, ann)
        news.confirm(bob, Position(epoch: 1, offset: 2))
        // The tablet comes behind the phone, and one speaks of another life of the log.
        news.confirm(bob, Position(epoch: 1, offset: 1))
        #expect(news.isKnown(to: bob))
        news.confirm(bob, Position(epoch: 9, offset: 7))
        #expect(news.isKnown(to: bob))
        news.add(message(3, by: ann))
        #expect(!news.isKnown(to: bob), "he has what was there before")
        news.confirm(bob, Position(epoch: 1, offset: 3))
        #expect(news.isKnown(to: bob))
    }

    @Test func nobodyIsToldOfTheirOwnMessage() throws {
        let news = news(ann, bob, ann, dave, dave)
        let others = try #require(try told(news, bob))
        #expect(others.sender == dave && others.position.offset == 5 && others.count == 4)
        #expect(others.payload == ByteBuffer(string: "dave 5"))
        let own = try #require(try told(news, dave))
        #expect(own.sender == ann && own.position.offset == 3 && own.count == 3 && own.time == 103)
        #expect(own.payload == ByteBuffer(string: "ann 3"))
        // Who has what another wrote last has it all, whatever the own messages behind it.
        var read = news
        read.confirm(dave, Position(epoch: 1, offset: 2))
        #expect(!read.isKnown(to: dave))
        read.confirm(dave, Position(epoch: 1, offset: 3))
        read.confirm(bob, Position(epoch: 1, offset: 3))
        #expect(read.isKnown(to: dave) && !read.isKnown(to: bob))
        // Two who answer one another are told of the other.
        #expect(try told(self.news(ann, dave, ann), ann)?.position.offset == 2)
        #expect(try told(self.news(ann, dave, ann), dave)?.position.offset == 3)
        #expect(try told(self.news(ann, ann), ann) == nil, "there is nothing of anybody else")
    }

    /// News that could not be told go on with those that came since, as if there had been no break.
    @Test func newsThatArePutTogetherAreWhatTheMessagesInARowWere() throws {
        var random = SystemRandomNumberGenerator()
        let senders = try (0..<80).map { try UserID("s\($0)") }
        for _ in 0..<300 {
            let few = senders.prefix([2, 3, 80].randomElement(using: &random) ?? 2)
            let messages = try (1...200).map { offset in
                message(
                    Offset(offset), by: try #require(few.randomElement(using: &random)),
                    expiry: UInt64.random(in: 0...3, using: &random) * 500)
            }
            let cut = Int.random(in: 1..<messages.count, using: &random)
            func news(_ part: ArraySlice<RoomNews.Message>) -> RoomNews {
                var news = RoomNews(part[part.startIndex], mostConfirmed: 8)
                for message in part.dropFirst() { news.add(message) }
                return news
            }
            var together = news(messages[..<cut])
            var later = news(messages[cut...])
            var whole = news(messages[...])
            for user in few.prefix(4) {
                let position = Position(epoch: 1, offset: Offset(Int.random(in: 1...200, using: &random)))
                together.confirm(user, Position(epoch: 1, offset: position.offset / 2))
                later.confirm(user, position)
                whole.confirm(user, position)
            }
            together.add(later)
            // Beyond 64 senders some aren't told apart, and which ones depends on the order.
            let isExact = few.count < 64
            for member in isExact ? Array(few) + [bob] : [bob] {
                #expect(try told(together, member) == told(whole, member))
                #expect(together.isKnown(to: member) == whole.isKnown(to: member))
            }
        }
    }

    @Test func aMembersNewsAreWorthTellingAsLongAsAnyThatAnotherWrote() throws {
        var news = RoomNews(message(1, by: ann, expiry: 500), mostConfirmed: 8)
        news.add(message(2, by: bob, expiry: 900))
        news.add(message(3, by: dave))
        news.add(message(4, by: bob, expiry: 300))
        #expect(try told(news, dave)?.until == 900)
        #expect(try told(news, ann)?.until == 0 && told(news, bob)?.until == 0)
        #expect(try told(news, ann)?.expiry == 300 && told(news, ann)?.count == 3)
    }

    @Test func moreSendersThanAreToldApartAreCountedTogether() throws {
        var news = RoomNews(message(1, by: ann, expiry: 500), mostConfirmed: 8)
        for offset in 2...200 as ClosedRange<Offset> {
            news.add(message(offset, by: identifier { try UserID("u\(offset)") }, expiry: offset == 150 ? 0 : 500))
        }
        #expect(try told(news, ann)?.count == 199 && told(news, ann)?.until == 0)
        #expect(try told(news, bob)?.count == 200)
    }
}
