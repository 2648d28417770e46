import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

/// How many channels a service can make a device remember.
@Suite("Channels that a device knows")
struct ChannelLimitTests {
    private let now = Fixture.start

    private static func room(_ number: Int) -> ChannelID { .room(Fixture.name("r\(number)")) }

    private func lane(_ number: Int, _ session: inout ClientSession) -> CloseCode? {
        let header = LaneHeader(channel: Self.room(number), epoch: Fixture.epoch)
        session.received(.lane(header), lane: LaneID(rawValue: UInt64(number)), now: now)
        return session.drain().endCode
    }

    /// A session that is connected, and was named as many channels as a service may.
    private func fullSession() -> ClientSession {
        let place = Position(epoch: Fixture.epoch, offset: 1)
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [Self.room(7): place],
            cursorVersion: 4)
        session.linkOpened(credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected([])), lane: .control, now: now)
        _ = session.drain()
        session.channelsNamed = ClientSession.maximumChannels - 1
        return session
    }

    @Test("the lane of one more ends the link, and is not remembered")
    func oneMore() {
        var session = fullSession()
        #expect(lane(1, &session) == nil)
        #expect(lane(7, &session) == nil, "it knew that by itself")
        #expect(lane(2, &session) == .limitExceeded)
        #expect(Set(session.channels.keys) == [Self.room(1), Self.room(7)])
    }

    @Test("so does one more that is ahead")
    func oneMoreAhead() {
        var session = fullSession()
        session.linkClosed(now: now)
        session.linkOpened(credential: .token("t"), connectNumber: 2, supportsPathChange: false, outbox: [], now: now)
        _ = session.drain()
        let records = [1, 7, 2].map {
            ChannelPosition(channel: Self.room($0), position: Position(epoch: Fixture.epoch, offset: 9))
        }
        session.received(.ahead(CursorsAhead(records)), lane: .control, now: now)
        #expect(session.drain().endCode == .limitExceeded)
        #expect(Set(session.channels.keys) == [Self.room(1), Self.room(7)])
    }
}
