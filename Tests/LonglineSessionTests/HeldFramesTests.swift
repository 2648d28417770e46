import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

/// What a server holds until CONNECT is accepted.
@Suite("Frames held for CONNECT")
struct HeldFramesTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)

    /// A session whose CONNECT waits: for the handshake, or for the host's word.
    private func session(
        isDeferred: Bool, _ change: (inout ServerSessionConfiguration) -> Void = { _ in }
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        var session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
        let credential: Credential = isDeferred ? .token("x") : .ticket(ByteBuffer(string: "t"))
        session.received(.connect(Fixture.connect(credential)), lane: .control, early: true, now: now)
        _ = session.drain()
        return session
    }

    private func longest(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "n", count: 64 - digits.utf8.count) + digits
    }

    @Test("What is held of the control lane weighs what it is, too", arguments: [true, false])
    func controlLane(isDeferred: Bool) {
        var session = self.session(isDeferred: isDeferred) { $0.maximumEarlyBytes = 10_000 }
        let refresh = Frame.refresh(Refresh(token: String(repeating: "t", count: FrameLimits.maximumToken)))
        session.received(refresh, lane: .control, early: true, now: now)
        #expect(session.drain().closeCode == nil)
        for _ in 1...2 { session.received(refresh, lane: .control, early: true, now: now) }
        #expect(session.drain().closeCode == .limitExceeded)
    }

    @Test("A frame weighs its length, or the items of its list where they take more")
    func weights() throws {
        let users = (0..<FrameLimits.maximumPresenceUsers).map { Fixture.user("u\($0)") }
        #expect(FrameCost.of(.subscribe(PresenceRequest(request: 1, users: users))) == 101 * 128)
        #expect(FrameCost.of(.unsubscribe(PresenceEnd(users: users))) == 101 * 128)
        let place = ChannelPosition(channel: Fixture.inbox, position: Position(epoch: 1, offset: 1))
        #expect(FrameCost.of(.cursors(Cursors([place, place], areAll: true))) == 3 * 128)
        #expect(FrameCost.of(.connect(Fixture.connect(cursors: [place]))) == 2 * 128)
        let refresh = Frame.refresh(Refresh(token: String(repeating: "t", count: 5_000)))
        let size = try FrameEncoder.encodedSize(refresh)
        #expect(FrameCost.of(refresh) == size && size > 5_000)
        #expect(FrameCost.of(.ping(Ping(nonce: 1))) == 128)
    }

    @Test("The largest flight that the specification allows is held by default, and read after the grant")
    func largestFlight() {
        var session = self.session(isDeferred: true)
        let early = { (frame: Frame, lane: LaneID) in session.received(frame, lane: lane, early: true, now: self.now) }
        early(.mode(.background), .control)
        for number in 0..<FrameLimits.maximumUrgencies {
            let room = ChannelID.room(Fixture.name(longest(number)))
            early(.urgency(ChannelUrgency(channel: room, urgency: .control)), .control)
        }
        let plain = (0..<FrameLimits.maximumPlainChannels).map { ChannelID.room(Fixture.name(longest($0))) }
        let encodings = (1...FrameLimits.maximumEncodings).map { BatchEncoding(rawValue: UInt32.max - UInt32($0)) }
        early(.encodings(Encodings(encodings, plain: plain)), .control)
        early(.lane(LaneHeader(channel: .room(Fixture.name(longest(0))), epoch: 7)), lane)
        let ids = 1...PublishID(EarlyAllowance.publishes - 1)
        for id in ids { early(.publish(Fixture.publish(id, after: id - 1, bytes: 0)), lane) }
        session.handshakeCompleted(now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
            channels: [Fixture.channel(.room(Fixture.name(longest(0))))], ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        let actions = session.drain()
        #expect(actions.closeCode == nil && actions.appends == Array(ids))
    }

    @Test("What will never have a place on the control lane is not waited with", arguments: [true, false])
    func placeless(isDeferred: Bool) {
        let connect = Frame.connect(Fixture.connect())
        let cursors = Frame.cursors(Cursors([], areAll: true))
        let pong = Frame.pong(Pong(nonce: 1, observedAddress: ""))
        let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: 0))
        for frame in [connect, cursors, pong, header, .connected(Fixture.connected())] {
            var session = self.session(isDeferred: isDeferred)
            session.received(frame, lane: lane, early: true, now: now)
            #expect(session.drain().closeCode == nil, "\(frame.name) on another lane waits")
            session.received(frame, lane: .control, early: true, now: now)
            #expect(session.drain().closeCode == .unexpectedFrame, "\(frame.name)")
        }
        var session = self.session(isDeferred: isDeferred)
        for frame in [Frame.ping(Ping(nonce: 1)), .join(RoomRequest(request: 1, room: Fixture.name("room")))] {
            session.received(frame, lane: .control, early: true, now: now)
        }
        #expect(session.drain().closeCode == nil)
    }
}
