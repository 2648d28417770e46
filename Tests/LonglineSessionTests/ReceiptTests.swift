import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Conversations in the session machines: when receipts go out, and what is asked of the host.
@Suite("Receipts")
struct ReceiptTests {
    private let now = Fixture.start
    private let bob = Fixture.user("bob")
    private let carol = Fixture.user("carol")

    private func server(
        _ change: (inout ServerSessionConfiguration) -> Void = { _ in }, identity: SessionIdentity = Fixture.identity()
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        var session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: [Fixture.channel()],
                ticket: nil), time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func receipt(_ user: UserID, _ kind: ReceiptKind = .read, _ offset: Offset, epoch: Epoch = 5) -> Receipt {
        Receipt(
            conversation: .user(user), user: user, kind: kind, position: Position(epoch: epoch, offset: offset))
    }

    private func receipts(_ session: inout ServerSession) -> [Receipt] {
        session.drain().frames.compactMap { if case .receipt(let receipt) = $0 { receipt } else { nil } }
    }

    @Test("Only the newest place of each conversation, user and kind is told, all together")
    func coalesces() {
        var session = server()
        session.receiptCame(receipt(bob, .delivered, 3), now: now)
        session.receiptCame(receipt(carol, .read, 9), now: now)
        session.receiptCame(receipt(bob, .delivered, 7), now: now)
        session.receiptCame(receipt(bob, .read, 4), now: now)
        session.receiptCame(receipt(bob, .delivered, 5), now: now)
        #expect(receipts(&session).isEmpty)
        #expect(session.nextDeadline == now + .milliseconds(100))
        session.deadlineReached(now: now + .milliseconds(100))
        #expect(receipts(&session) == [receipt(bob, .delivered, 7), receipt(carol, .read, 9), receipt(bob, .read, 4)])
        session.deadlineReached(now: now + .milliseconds(300))
        #expect(receipts(&session).isEmpty)
        // Another life of the log begins anew.
        session.receiptCame(receipt(bob, .read, 90), now: now)
        session.receiptCame(receipt(bob, .read, 2, epoch: 6), now: now)
        session.deadlineReached(now: now + .seconds(1))
        #expect(receipts(&session) == [receipt(bob, .read, 2, epoch: 6)])
    }

    @Test("What waits is bounded: the oldest is dropped")
    func isBounded() {
        var session = server()
        for index in 0..<300 { session.receiptCame(receipt(Fixture.user("user\(index)"), .read, 1), now: now) }
        session.deadlineReached(now: now + .seconds(1))
        let told = receipts(&session)
        #expect(told.count == 256 && told.first?.user == Fixture.user("user44"))
    }

    @Test("In the background a receipt waits for something else to go out")
    func waitsInTheBackground() {
        var session = server()
        session.received(.mode(.background), lane: .control, early: false, now: now)
        session.receiptCame(receipt(bob, .read, 3), now: now)
        session.deadlineReached(now: now + .seconds(29))
        #expect(receipts(&session).isEmpty)
        session.received(.ping(Ping(nonce: 1)), lane: .control, early: false, now: now + .seconds(29))
        #expect(receipts(&session) == [receipt(bob, .read, 3)])
        session.receiptCame(receipt(bob, .read, 4), now: now + .seconds(30))
        session.deadlineReached(now: now + .seconds(60))
        #expect(receipts(&session) == [receipt(bob, .read, 4)])
    }

    @Test("Who may not receive is told nothing, and tells nothing")
    func needsTheRight() {
        var identity = Fixture.identity()
        identity.mayReceive = false
        var session = server(identity: identity)
        session.receiptCame(receipt(bob, .read, 3), now: now)
        let mark = ReadMark(conversation: .user(bob), position: Position(epoch: 5, offset: 1), isPrivate: false)
        session.received(.read(mark), lane: .control, early: false, now: now)
        session.received(
            .conversations(ConversationsRequest(request: 1, after: ByteBuffer(), limit: 50)), lane: .control,
            early: false, now: now)
        let item = ConversationItem(
            conversation: .user(bob), last: Position(epoch: 5, offset: 1), time: 1, unread: 1,
            settings: ConversationSettings(), read: 0, peerDelivered: 0, peerRead: 0)
        session.conversationsListed(ConversationsPage(request: 1, next: ByteBuffer(), items: [item]), now: now)
        let actions = session.drain()
        #expect(!actions.contains { if case .markRead = $0 { true } else { false } })
        let pages = actions.frames.compactMap { if case .conversationsPage(let page) = $0 { page.items } else { nil } }
        #expect(pages == [[]])
    }

    @Test("In early data everything about conversations waits for the handshake")
    func waitsForTheHandshake() {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        var connect = Fixture.connect()
        connect.credential = .ticket(ByteBuffer(string: "t"))
        session.received(.connect(connect), lane: .control, early: true, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel()], ticket: nil), time: 0, now: now)
        _ = session.drain()
        let mark = ReadMark(conversation: .user(bob), position: Position(epoch: 5, offset: 1), isPrivate: false)
        let change = ConversationChange(request: 1, conversation: .user(bob), setting: .block(true))
        for frame in [Frame.read(mark), .conversationSet(change)] {
            session.received(frame, lane: .control, early: true, now: now)
        }
        #expect(session.drain().isEmpty)
        session.handshakeCompleted(now: now)
        let asked = session.drain().compactMap { action -> String? in
            switch action {
            case .markRead: "read"
            case .changeConversation: "change"
            default: nil
            }
        }
        #expect(asked == ["read", "change"])
    }

    @Test("A client takes what it asked for and what it is told, and nothing else")
    func client() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        let request = ConversationsRequest(request: 1, after: ByteBuffer(), limit: 5)
        let early = session.conversations(request, now: now)
        #expect(!early, "not connected")
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        let taken = (1...5 as ClosedRange<UInt64>).map { number in
            session.conversations(ConversationsRequest(request: number, after: ByteBuffer(), limit: 5), now: now)
        }
        #expect(taken == [true, true, true, true, false])
        let page = ConversationsPage(request: 1, next: ByteBuffer(), items: [])
        let news = ConversationState(
            request: 0, refusal: nil, conversation: .user(bob), settings: ConversationSettings())
        let unasked = ConversationState(
            request: 9, refusal: nil, conversation: .user(bob), settings: ConversationSettings())
        for frame in [
            Frame.conversationsPage(page), .conversationsPage(page), .conversation(news), .conversation(unasked),
            .receipt(receipt(bob, .read, 3)),
        ] {
            session.received(frame, lane: .control, now: now)
        }
        let told = session.drain().compactMap { action -> String? in
            switch action {
            case .conversations: "page"
            case .conversationState: "state"
            case .receipt: "receipt"
            default: nil
            }
        }
        #expect(told == ["page", "state", "receipt"])
        #expect(session.isConnected)
    }
}
