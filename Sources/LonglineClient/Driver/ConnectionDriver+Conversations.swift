import LonglineSession
import LonglineWire
import NIOCore

/// Conversations: requests are asked on the present link only, a few at a time, the rest in their order. Read places are said
/// again until the service has them.
extension ConnectionDriver {
    /// Someone who waits for an answer about conversations.
    struct ConversationWaiter {
        enum Question {
            case list(ConversationsRequest, (Result<ConversationPage, ClientError>) -> Void)
            case change(ConversationChange, (Result<ConversationSettings, ClientError>) -> Void)
        }

        var question: Question
        var isSent = false
        var timer: DriverTimer?

        func fail(_ error: ClientError) {
            timer?.cancel()
            switch question {
            case .list(_, let done): done(.failure(error))
            case .change(_, let done): done(.failure(error))
            }
        }
    }

    /// What the user read and the service has not stored.
    struct ReadPlaces {
        static let limit = 256
        var places: [ChannelID: Position] = [:]
        /// Said on the present link.
        var said: [ChannelID: Position] = [:]
        var isScheduled = false
    }

    private static let maximumConversationRequests = 64
    private static let changeTimeout = TimeAmount.seconds(30)
    /// How long read places are gathered.
    private static let readDelay = TimeAmount.milliseconds(250)

    // MARK: Requests

    func requestConversations(
        after place: ConversationCursor?, limit: Int, timeout: TimeAmount,
        done: @escaping (Result<ConversationPage, ClientError>) -> Void
    ) -> UInt64 {
        let most = FrameLimits.maximumConversations
        guard (1...most).contains(limit) else {
            done(
                .failure(
                    ClientError(
                        .refused, message: "a page of \(limit) conversations", advice: "ask for 1 to \(most)",
                        refusal: .invalidRange)))
            return 0
        }
        return ask(timeout: timeout) { id in
            .list(
                ConversationsRequest(request: id, after: place?.bytes ?? ByteBuffer(), limit: UInt64(limit)), done)
        }
    }

    func requestChange(
        of conversation: ChannelID, to setting: ConversationSetting,
        done: @escaping (Result<ConversationSettings, ClientError>) -> Void
    ) -> UInt64 {
        ask(timeout: Self.changeTimeout) { id in
            .change(ConversationChange(request: id, conversation: conversation, setting: setting), done)
        }
    }

    private func ask(timeout: TimeAmount, _ question: (UInt64) -> ConversationWaiter.Question) -> UInt64 {
        lastConversationRequest += 1
        let id = lastConversationRequest
        var waiter = ConversationWaiter(question: question(id))
        if let error = conversationRefusal() {
            waiter.fail(error)
            return id
        }
        waiter.timer = schedule(in: timeout) { driver in
            driver.endConversationRequest(id, ClientError(.timedOut, message: "no answer came in time"))
        }
        conversationWaiters[id] = waiter
        sendConversationRequests()
        pump()
        return id
    }

    private func conversationRefusal() -> ClientError? {
        if case .stopped(let code, let reason) = phase { return ClientError(stoppedBy: code, reason: reason) }
        guard case .connected = phase else {
            return ClientError(
                .notConnected, message: "this needs a connection, and there is none now",
                advice: "ask again when the state is connected")
        }
        guard conversationWaiters.count < Self.maximumConversationRequests else {
            return ClientError(
                .tooManyRequests, message: "\(Self.maximumConversationRequests) requests about conversations wait")
        }
        return nil
    }

    /// The app does not wait any more; an answer that still comes is dropped.
    func cancelConversationRequest(_ id: UInt64) {
        endConversationRequest(id, ClientError(.disconnected, message: "the wait was cancelled"))
    }

    func failConversationRequests(_ error: ClientError) {
        for id in conversationWaiters.keys { endConversationRequest(id, error) }
        reads.said = [:]
    }

    private func endConversationRequest(_ id: UInt64, _ error: ClientError) {
        conversationWaiters.removeValue(forKey: id)?.fail(error)
    }

    /// Sends what was not sent, as far as the session takes requests; an answer makes room for the next.
    private func sendConversationRequests() {
        guard case .connected = phase else { return }
        for (id, waiter) in conversationWaiters.sorted(by: { $0.key < $1.key }) where !waiter.isSent {
            let sent =
                switch waiter.question {
                case .list(let request, _): session.conversations(request, now: clock.now())
                case .change(let change, _): session.change(change, now: clock.now())
                }
            if sent { conversationWaiters[id]?.isSent = true }
        }
    }

    // MARK: Answers

    func conversationsArrived(_ page: ConversationsPage) {
        defer { sendConversationRequests() }
        guard let waiter = conversationWaiters.removeValue(forKey: page.request) else { return }
        waiter.timer?.cancel()
        guard case .list(_, let done) = waiter.question else { return }
        if let refusal = page.refusal {
            let advice =
                switch refusal {
                case .invalidRange: "ask for 1 to 50, from a place of the page before"
                case .overloaded, .storageFull: ClientError.againAdvice(page.retryAfter)
                default: ""
                }
            return done(
                .failure(
                    Self.conversationError(
                        "the list of conversations", refusal, advice: advice, retryAfter: page.retryAfter)))
        }
        let next = page.next.readableBytes == 0 ? nil : ConversationCursor(bytes: page.next)
        done(.success(ConversationPage(conversations: page.items.map(Conversation.init), next: next)))
    }

    func conversationStateArrived(_ state: ConversationState) {
        guard state.request != 0 else {
            return outlets.notices.send(.conversationChanged(Destination(state.conversation), state.settings))
        }
        defer { sendConversationRequests() }
        guard let waiter = conversationWaiters.removeValue(forKey: state.request) else { return }
        waiter.timer?.cancel()
        guard case .change(_, let done) = waiter.question else { return }
        if let refusal = state.refusal {
            return done(.failure(Self.conversationError("settings of \(state.conversation)", refusal)))
        }
        done(.success(state.settings))
    }

    private static func conversationError(
        _ what: String, _ refusal: RefusalCode, advice: String = "", retryAfter: UInt64 = 0
    ) -> ClientError {
        ClientError(
            .refused, message: "\(what): refused (\(refusal.rawValue), \(refusal.explanation))", advice: advice,
            refusal: refusal, retryAfter: ClientError.retryAfter(retryAfter))
    }

    // MARK: Receipts

    func receiptArrived(_ receipt: Receipt) {
        if receipt.user == user, receipt.kind == .read, let place = reads.places[receipt.conversation],
            place.epoch == receipt.position.epoch
        {
            if place.offset <= receipt.position.offset {
                reads.places[receipt.conversation] = nil
            } else if reads.said[receipt.conversation] == place {
                // The service went a part of the way: the same place, said again, goes on from there.
                reads.said[receipt.conversation] = nil
                scheduleReads()
            }
        }
        outlets.receipts.send(receipt)
    }

    /// The user read on: told to the service in a moment.
    func markRead(_ conversation: ChannelID, _ position: Position) {
        if let known = reads.places[conversation], known.epoch == position.epoch, known.offset >= position.offset {
            return
        }
        // A place that the service does not answer, as it moved nothing there, gives way when there are many.
        if reads.places[conversation] == nil, reads.places.count >= ReadPlaces.limit {
            if let any = reads.places.keys.first { reads.places[any] = nil }
        }
        reads.places[conversation] = position
        scheduleReads()
    }

    private func scheduleReads() {
        guard !reads.isScheduled else { return }
        reads.isScheduled = true
        _ = schedule(in: Self.readDelay) { driver in
            driver.reads.isScheduled = false
            driver.sendReads()
            driver.pump()
        }
    }

    /// Read places beyond a log's end are of what it lost: the service takes none of them, and what is read next is before them.
    func forgetReads(beyond end: Position, in channel: ChannelID) {
        for (conversation, place) in reads.places where place.epoch == end.epoch && place.offset > end.offset {
            let isThere =
                switch (channel, conversation) {
                // The places of all direct messages are those of the user's inbox.
                case (.user, .user): true
                default: channel == conversation
                }
            if isThere { reads.places[conversation] = nil }
        }
    }

    /// Says what was not said on this link.
    func sendReads() {
        guard case .connected = phase else { return }
        reads.said = reads.said.filter { reads.places[$0.key] != nil }
        for (conversation, position) in reads.places where reads.said[conversation] != position {
            let mark = ReadMark(
                conversation: conversation, position: position, isPrivate: !configuration.sharesReadReceipts)
            if session.markRead(mark, now: clock.now()) { reads.said[conversation] = position }
        }
    }

    /// The service's clock, as far as it is known: milliseconds since 1970. A wall clock that is set moves it only before the
    /// first connection.
    var serverTime: UInt64 {
        guard let (time, at) = serverClock else { return clock.wall() }
        let passed = UInt64(max(0, (clock.now() - at).nanoseconds / 1_000_000))
        return time.addingReportingOverflow(passed).partialValue
    }
}

extension Conversation {
    init(_ item: ConversationItem) {
        func place(_ offset: Offset) -> Position? {
            offset == 0 ? nil : Position(epoch: item.last.epoch, offset: offset)
        }
        self.init(
            destination: Destination(item.conversation), last: place(item.last.offset), time: item.time,
            unread: Int(clamping: item.unread), settings: item.settings, read: place(item.read),
            peerDelivered: place(item.peerDelivered), peerRead: place(item.peerRead))
    }
}
