import LonglineSession
import LonglineWire
import Testing

/// Cursors of channels that CONNECTED does not list.
@Suite("Cursors of channels that are not listed")
struct UnlistedCursorTests {
    private let now = Fixture.start
    private let place = Position(epoch: Fixture.epoch, offset: 6)

    private func named(by session: inout ClientSession, number: UInt64) -> [ChannelID] {
        session.linkOpened(
            credential: .token("token"), connectNumber: number, supportsPathChange: false, outbox: [], now: now)
        for case .connect(let connect) in session.drain().frames { return connect.cursors.map(\.channel) }
        return []
    }

    private func session() -> ClientSession {
        ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [Fixture.room: place],
            cursorVersion: 3)
    }

    /// The server's own cursor may be further: without the name it would go on from there, and where nobody writes any more,
    /// nothing would ever break.
    @Test("A cursor of a channel that the credential does not allow now is said again on the next link")
    func notAllowedNow() {
        var session = session()
        #expect(named(by: &session, number: 1) == [Fixture.room])
        let inbox = ChannelAnswer(channel: Fixture.inbox, head: place, recovery: .fresh)
        session.received(.connected(Fixture.connected([inbox])), lane: .control, now: now)
        #expect(named(by: &session, number: 2) == [Fixture.room])
        let room = ChannelAnswer(channel: Fixture.room, head: place, recovery: .recovered)
        session.received(.connected(Fixture.connected([room])), lane: .control, now: now)
        #expect(named(by: &session, number: 3).isEmpty)
    }

    @Test("Of an answer that has no room for it a cursor is known")
    func noRoom() {
        var session = session()
        #expect(named(by: &session, number: 1) == [Fixture.room])
        let others = (0..<FrameLimits.maximumCursors).map { number in
            ChannelAnswer(channel: .room(Fixture.name("r\(number)")), head: place, recovery: .fresh)
        }
        session.received(.connected(Fixture.connected(others)), lane: .control, now: now)
        #expect(named(by: &session, number: 2).isEmpty)
    }
}
