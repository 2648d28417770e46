internal import DequeModule
internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

/// One request and its response on their stream, on either side, confined to the connection's event loop.
///
/// ```
///  receiving:  head --HEADERS--> body --DATA, HEADERS (trailers)--> ended       (a client stays in head over 1xx responses)
///                 \__________________\--reset, stopped, malformed--> failed
///  sending:    head --HEADERS--> body --finish--> ended
///                 \__________________\--reset, STOP_SENDING--> failed
/// ```
/// Received bytes of the body stay in the QUIC stream until somebody asks for them, and so hold up the peer; what is sent waits in
/// its writer's task once the stream's send buffer is full. Nothing else is queued.
final class Exchange {
    enum Receiving {
        case head, body, ended
        case failed(HTTP3Error)
    }

    enum Sending {
        case head, body, ended
        case failed(HTTP3Error)
    }

    let id: QUICStreamID
    /// The table that this is in until it is over; both let go of each other then.
    let session: Session
    let connection: QUICLoopConnection

    // Receiving
    @exclusivity(unchecked) var receiving = Receiving.head
    @exclusivity(unchecked) var frame = FrameReader()
    /// Frames that say nothing, since the last one that does.
    @exclusivity(unchecked) var idleFrames = RateLimit(Exchange.idleFramesLimit)
    /// The part of a HEADERS frame that has come.
    @exclusivity(unchecked) var block: [UInt8] = []
    @exclusivity(unchecked) var blocked: BlockedSection?
    @exclusivity(unchecked) var sawEnd = false
    @exclusivity(unchecked) var sawTrailers = false
    @exclusivity(unchecked) var trailers: HTTPFields?
    /// Bytes that the body should have, and has so far.
    @exclusivity(unchecked) var expectedLength: UInt64?
    @exclusivity(unchecked) var receivedLength: UInt64 = 0
    @exclusivity(unchecked) var reader: Waiter<ByteBuffer?>?
    /// The connection has ended with the message whole and not yet read: what is left of it, a stream's window at most.
    @exclusivity(unchecked) var salvaged = Deque<ByteBuffer>()
    @exclusivity(unchecked) var isSalvaging = false
    @exclusivity(unchecked) var isParsing = false
    /// The body has more bytes than allowed: its reader learns it.
    @exclusivity(unchecked) var isBodyTooLarge = false
    /// Server: the client sends its body once it is asked for it (RFC 9110 section 10.1.1), which it wasn't yet.
    @exclusivity(unchecked) var awaitsContinue = false

    // Sending
    @exclusivity(unchecked) var sending = Sending.head
    @exclusivity(unchecked) var out = Deque<ByteBuffer>()
    @exclusivity(unchecked) var finishes = false
    @exclusivity(unchecked) var writer: Waiter<Void>?
    @exclusivity(unchecked) var declaredLength: UInt64?
    /// Method or status forbid a body: what the application writes is left out.
    @exclusivity(unchecked) var hasNoBody = false
    @exclusivity(unchecked) var sentLength: UInt64 = 0

    // Both
    @exclusivity(unchecked) var priority = HTTP3Priority.standard
    /// A PRIORITY_UPDATE came: it outweighs the header field, whichever was sent first (RFC 9218 section 7).
    @exclusivity(unchecked) var isPriorityUpdated = false
    /// Server: the handler has said what it is, and the client has no more say (RFC 9218 section 8).
    @exclusivity(unchecked) var isPriorityDecided = false
    @exclusivity(unchecked) var isStreamClosed = false
    /// Server: the client refused the response, though perhaps all of it was written.
    @exclusivity(unchecked) private var wasRefused = false
    /// Server: the request, until what came with its header section is worked off.
    @exclusivity(unchecked) var announced: RequestHead?
    /// Server: whose handler answers it and hasn't returned yet, and its task once it had to wait.
    @exclusivity(unchecked) var handling: HTTP3ServerSession?
    @exclusivity(unchecked) var task: Task<Void, Never>?
    /// Server: a handler has it, and its answer isn't begun.
    @exclusivity(unchecked) var isWorkedOn = false
    /// Server: the connection gives way to another, and doesn't wait for it.
    @exclusivity(unchecked) var isLeftBehind = false
    @exclusivity(unchecked) var method = HTTPRequest.Method.get
    /// It came in 0-RTT packets (server), or left in them (client).
    @exclusivity(unchecked) var isEarly = false
    /// Client: what was received before anyone asked, and who asks.
    @exclusivity(unchecked) var response: HTTPResponse?
    @exclusivity(unchecked) var responseWaiter: Waiter<HTTPResponse>?
    @exclusivity(unchecked) var informationalCount = 0
    @exclusivity(unchecked) var onInformational: (@Sendable (HTTPResponse) -> Void)?

    // Time: when the header section must be complete, and since when the present reader or writer waits.
    @exclusivity(unchecked) var deadline: NIODeadline?
    @exclusivity(unchecked) var readerSince: NIODeadline?
    @exclusivity(unchecked) var readerWaited = TimeAmount.zero
    @exclusivity(unchecked) var readerProgress = 0
    @exclusivity(unchecked) private(set) var writerSince: NIODeadline?
    @exclusivity(unchecked) private var writerWaited = TimeAmount.zero
    /// What the client had when the writer's time began.
    @exclusivity(unchecked) private var writerMark = 0
    /// Server: bytes that the stream took, and how many of them the client is known to have.
    @exclusivity(unchecked) var given = 0
    @exclusivity(unchecked) private var taken = 0
    /// Server: what of a whole response the client's flow control holds back, and since when it is nearly that much.
    @exclusivity(unchecked) var heldBack: (bytes: Int, since: NIODeadline)?
    /// Server: what the client hasn't acknowledged of one that is done with, and since when it is nearly that much.
    @exclusivity(unchecked) private var leftover: (bytes: Int, since: NIODeadline)?

    init(_ id: QUICStreamID, session: Session) {
        self.id = id
        self.session = session
        connection = session.connection
    }

    var isReceivingOver: Bool {
        switch receiving {
        case .ended, .failed: true
        case .head, .body: false
        }
    }

    var hasFailedReceiving: Bool { if case .failed = receiving { true } else { false } }

    var isSendingOver: Bool {
        switch sending {
        case .ended, .failed: true
        case .head, .body: false
        }
    }

    var hasFailedSending: Bool { if case .failed = sending { true } else { false } }

    /// Server: the answer was written as a whole, whether or not the stream has taken all of it.
    private var isAnswered: Bool {
        switch sending {
        case .ended: true
        case .body: finishes
        case .head, .failed: false
        }
    }

    var isHandling: Bool { handling != nil }

    /// Client: whether the server may say that it hasn't looked at the request.
    var isUnanswered: Bool { if !session.isServer, case .head = receiving { true } else { false } }

    /// Nobody here has anything to do with it any more; what we sent may be on its way.
    private var isDoneWith: Bool { isReceivingOver && isSendingOver && !isHandling }

    /// Whether nothing is under way: all that may be missing is the peer's end of the stream, which it can hold back as long as it
    /// likes.
    var isOver: Bool {
        guard isDoneWith else { return false }
        if case .failed = sending { return true }
        return isStreamClosed || ((try? connection.notifyDelivery(of: id)) ?? true)
    }

    /// Server: whether all of the answer has left, and only its acknowledgement is missing: bytes that are lost are sent again.
    var isUnderWay: Bool {
        guard case .ended = sending else { return false }
        return !isStreamClosed && connection.unsentBytes(id) == 0
    }

    /// Server: the handler has returned, or thrown.
    func handled(_ failure: (any Error)?) {
        guard let server = handling else { return }
        (handling, task) = (nil, nil)
        server.handled(self, failure)
        endWork()
    }

    // MARK: The end

    /// Gives both directions up with a code.
    func abandon(_ code: HTTP3ErrorCode, _ error: HTTP3Error) {
        failReceiving(error, stop: code)
        failSending(error, reset: code)
        task?.cancel()
        retireIfDone()
    }

    /// A task of this side doesn't want it any more.
    func cancel() {
        guard !isReceivingOver || !isSendingOver else { return }
        session.meter.count(.cancelled)
        abandon(.requestCancelled, .cancelled)
    }

    /// What this side was sending isn't whole and won't be; what comes from the peer may go on.
    func giveUpSending() {
        guard !isSendingOver else { return }
        session.meter.count(.cancelled)
        failSending(.cancelled, reset: .requestCancelled)
        retireIfDone()
    }

    /// - Parameter code: what the peer is told; nil: it ended its side itself.
    func failReceiving(_ error: HTTP3Error, stop code: HTTP3ErrorCode?) {
        guard !isReceivingOver else { return }
        receiving = .failed(error)
        // What refers to the dynamic table and won't be read is given back (RFC 9204 section 2.2.2.2).
        session.decoder.cancel(stream: id.rawValue, blocked)
        if blocked != nil { session.blocked.removeAll { $0 == id } }
        blocked = nil
        block = []
        if let code { connection.stopSending(id, code: code.rawValue) }
        session.needsFlush()
        wakeReceivers(error)
    }

    private func wakeReceivers(_ error: HTTP3Error) {
        reader?.finish(.failure(error))
        reader = nil
        responseWaiter?.finish(.failure(error))
        responseWaiter = nil
        deadline = nil
    }

    func failSending(_ error: HTTP3Error, reset code: HTTP3ErrorCode?) {
        // What was finished may still be on its way: a reset takes it back.
        if case .failed = sending { return }
        if case .ended = sending, code == nil || isStreamClosed { return }
        sending = .failed(error)
        endWork()
        out.removeAll()
        if let code { connection.reset(id, code: code.rawValue) }
        writer?.finish(.failure(error))
        writer = nil
        writerSince = nil
    }

    func wasReset(_ code: UInt64) {
        guard !isReceivingOver else { return }
        session.meter.count(.cancelled)
        defer { session.limitCancellations() }
        let error = HTTP3Error.reset(code, isUnanswered: isUnanswered)
        failReceiving(error, stop: nil)
        if session.isServer {
            // Nobody waits for the answer, or the request isn't whole: either way there is none to give. One that was given isn't taken
            // back: who doesn't want it says so (RFC 9114 section 4.1).
            if !isAnswered { failSending(error, reset: .requestCancelled) }
            // Nor does the task that waits until the stream has taken the answer.
            if !isAnswered || writer == nil { task?.cancel() }
        } else if !isSendingOver {
            failSending(error, reset: .requestCancelled)
        }
        retireIfDone()
    }

    func wasStopped(_ code: UInt64) {
        guard session.isServer else {
            // The response may come all the same (RFC 9114 section 4.1).
            failSending(
                HTTP3Error(
                    .bodyRefused, "the server wants no more of the request's body",
                    cause: "\(HTTP3ErrorCode(rawValue: code))", advice: "Read the response.",
                    protocolCode: HTTP3ErrorCode(rawValue: code)), reset: nil)
            return retireIfDone()
        }
        if case .failed = sending { return }
        wasRefused = true
        session.meter.count(.cancelled)
        defer { session.limitCancellations() }
        let error = HTTP3Error.reset(code, isUnanswered: isUnanswered)
        failSending(error, reset: nil)
        failReceiving(error, stop: .requestCancelled)
        task?.cancel()
        retireIfDone()
    }

    /// Both directions of the stream are done; what is unread can still be read.
    func closed() {
        isStreamClosed = true
        if case .ended = sending, !wasRefused { session.noteAnswered() }
        noteTaken()
        parse()
        announce()
        retireIfDone()
    }

    func connectionClosed(_ error: HTTP3Error) {
        salvage()
        switch receiving {
        case .ended: if let reader { deliverRest(to: reader) }
        case .head, .body: receiving = .failed(error)
        // Why it failed before says more, and nobody may have asked yet: that it was not processed, for one.
        case .failed: break
        }
        if let blocked {
            session.decoder.cancel(stream: id.rawValue, blocked)
            self.blocked = nil
        }
        wakeReceivers(error)
        switch sending {
        case .ended, .failed: break
        case .head, .body: sending = .failed(error)
        }
        endWork()
        out.removeAll()
        writer?.finish(.failure(error))
        writer = nil
        task?.cancel()
    }

    func retireIfDone() {
        guard isStreamClosed, isReceivingOver, !isHandling else { return }
        session.remove(self)
    }

    func setPriority(_ priority: HTTP3Priority) {
        self.priority = priority
        connection.setPriority(priority.stream, of: id)
    }

    // MARK: Time

    func checkDeadline(_ now: NIODeadline) {
        guard !isDoneWith else { return checkLeftover(now) }
        if let deadline, deadline <= now {
            session.meter.count(.timeouts)
            let error = HTTP3Error(
                .timeout, "the request's header section took too long", advice: "The client is too slow.",
                protocolCode: .requestIncomplete)
            return abandon(.requestIncomplete, error)
        }
        if let since = readerSince, readerWaited + (now - since) > session.limits.bodyTimeout {
            session.meter.count(.timeouts)
            readerSince = nil
            failReceiving(
                HTTP3Error(
                    .timeout, "the request's body comes too slowly", advice: "The client is too slow.",
                    protocolCode: .requestIncomplete), stop: .requestIncomplete)
        }
        if let waited = writerWaits(now) ?? heldBackSince(now).map({ now - $0 }), waited > session.limits.writeTimeout {
            session.meter.count(.timeouts)
            abandon(
                .requestCancelled,
                HTTP3Error(
                    .timeout, "the client takes nothing of the response, or little",
                    advice: "It has given up, or is too slow.",
                    protocolCode: .requestCancelled))
        }
    }

    /// A client that neither ends its side nor acknowledges more of ours has had its time.
    private func checkLeftover(_ now: NIODeadline) {
        let bytes = connection.unacknowledgedBytes(id)
        guard var leftover, leftover.bytes == bytes || (bytes > 0 && !isProgress(from: leftover.bytes, to: bytes))
        else {
            self.leftover = (bytes, now)
            return
        }
        if bytes > 0 { leftover.since = blamed(leftover.since) }
        self.leftover = leftover
        guard now - leftover.since > session.limits.writeTimeout else { return }
        session.meter.count(.timeouts)
        if bytes > 0 {
            failSending(
                HTTP3Error(
                    .timeout, "the client doesn't acknowledge the response", advice: "It has given up, or is too slow.",
                    protocolCode: .requestCancelled), reset: .requestCancelled)
        }
        session.remove(self)
    }

    /// Since when the client takes nothing of a response that was written as a whole, and that no task waits for.
    private func heldBackSince(_ now: NIODeadline) -> NIODeadline? {
        guard isAnswered, writer == nil, !isStreamClosed else { return nil }
        let unsent = out.reduce(connection.unsentBytes(id)) { $0 + $1.readableBytes }
        if unsent == 0 {
            heldBack = nil
        } else if let before = heldBack, !isProgress(from: before.bytes, to: unsent) {
            heldBack = (before.bytes, blamed(before.since))
        } else {
            heldBack = (unsent, now)
        }
        return heldBack?.since
    }

    /// How long the client takes nothing of a response whose writer waits, or too little. What it takes counts before the stream asks for
    /// more, which it does only when half of its buffer is free.
    private func writerWaits(_ now: NIODeadline) -> TimeAmount? {
        guard let before = writerSince else { return nil }
        let since = hasWriterProgress ? now : blamed(before)
        if since > before {
            writerSince = since
            writerWaited = .zero
            writerMark = taken
        }
        return writerWaited + (now - since)
    }

    /// From when on it is the client's fault that it takes nothing of this response, or too little, which it does since a time. Where
    /// its flow control for the stream holds the response back, it is to blame whatever it takes of others.
    private func blamed(_ since: NIODeadline) -> NIODeadline {
        guard let pace = session.pace.since, !connection.isHeldBackByPeer(id) else { return since }
        return max(since, pace)
    }

    /// Server: tells the session what the client has taken since this was last looked at.
    func noteTaken() {
        guard session.isServer, !wasRefused else { return }
        if case .failed = sending { return }
        let known = given - connection.unacknowledgedBytes(id)
        session.pace.took(known - taken)
        taken = known
    }

    /// Whether the client has something to take.
    var waitsForClient: Bool { writerSince != nil || connection.unacknowledgedBytes(id) > 0 }

    private var hasWriterProgress: Bool { taken - writerMark >= session.limits.writeProgress }

    /// Whether a client that has left so many bytes of a response, and then so many, has taken what it must.
    private func isProgress(from before: Int, to after: Int) -> Bool { before - after >= session.limits.writeProgress }

    /// The writer came to wait, or the stream took bytes of it, perhaps all.
    func clockWriter(waits: Bool) {
        guard session.isServer else { return }
        let now = NIODeadline.now()
        noteTaken()
        if hasWriterProgress {
            writerMark = taken
            writerWaited = .zero
        } else if let since = writerSince {
            writerWaited = writerWaited + (now - since)
        }
        writerSince = waits ? now : nil
    }

    /// The reader came to wait, or has what it waited for.
    func clockReader(waits: Bool, bytes: Int = 0) {
        guard session.isServer else { return }
        if waits {
            if readerSince == nil { readerSince = .now() }
            return
        }
        readerProgress += bytes
        if readerProgress >= session.limits.bodyProgress {
            readerProgress = 0
            readerWaited = .zero
        } else if let since = readerSince {
            readerWaited = readerWaited + (.now() - since)
        }
        readerSince = nil
    }
}
