import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

/// How many channels a service can make a device remember.
@Suite("Channels that a device knows")
struct ChannelLimitTests {
    private let now = Fixture.start

    private static func room(_ number: Int) -> ChannelID { .room(Fixture.name("r\(number)")) }

    /// A session that knows as many channels as it may, connected.
    private func fullSession() -> ClientSession {
        let place = Position(epoch: Fixture.epoch, offset: 1)
        let rooms = (0..<ClientSession.maximumChannels).map { (Self.room($0), place) }
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer,
            cursors: Dictionary(rooms) { first, _ in first }, cursorVersion: 4)
        session.linkOpened(credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected([])), lane: .control, now: now)
        _ = session.drain()
        return session
    }

    @Test("a lane of one more ends the link, and is not remembered")
    func oneMore() {
        var session = fullSession()
        let header = LaneHeader(channel: Self.room(7), epoch: Fixture.epoch)
        session.received(.lane(header), lane: LaneID(rawValue: 1), now: now)
        #expect(session.drain().endCode == nil)
        let other = LaneHeader(channel: Self.room(-1), epoch: Fixture.epoch)
        session.received(.lane(other), lane: LaneID(rawValue: 2), now: now)
        #expect(session.drain().endCode == .limitExceeded)
        #expect(session.channels.count == ClientSession.maximumChannels)
    }
}
