internal import DequeModule
internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

/// A client's side of a connection, on its event loop: requests that wait for the handshake or for a stream, and those who wait for
/// the connection itself.
final class ClientSession: QUICConnectionHandler {
    /// What a request needs before it leaves.
    struct Request: Sendable {
        var request: HTTPRequest
        var body: ByteBuffer?
        var trailers: HTTPFields?
        /// Whether nothing follows.
        var isWhole: Bool
        var onInformational: (@Sendable (HTTPResponse) -> Void)?
        var priority: HTTP3Priority?

        /// Whether an attacker's repetition does no harm.
        var mayBeEarly: Bool { isWhole && request.method.isSafe && (body?.readableBytes ?? 0) == 0 }
    }

    @exclusivity(unchecked) private(set) var session: Session?
    @exclusivity(unchecked) private var waiting = Deque<(request: Request, waiter: Waiter<OnLoop<Exchange>>)>()
    @exclusivity(unchecked) private var readyWaiters: [(isEarly: Bool, waiter: Waiter<Void>)] = []
    @exclusivity(unchecked) private var closeWaiters: [Waiter<QUICCloseReason>] = []
    @exclusivity(unchecked) private var isEarlyPossible = false

    func attach(_ session: Session) {
        self.session = session
        session.onProgress = { [unowned self] in progress() }
        session.onClosed = { [unowned self] in closed($0) }
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .earlyDataPossible = event { isEarlyPossible = true }
        session?.handle(event)
    }

    func batchEnded(on connection: QUICLoopConnection) { session?.batchEnded() }

    // MARK: The connection

    func waitReady(early: Bool, _ waiter: Waiter<Void>) {
        guard let session else { return }
        if let reason = session.closeReason { return waiter.finish(.failure(HTTP3Error.connectFailed(reason))) }
        if session.isHandshakeComplete || (early && isEarlyPossible) { return waiter.finish(.success(())) }
        readyWaiters.append((early, waiter))
    }

    func waitClosed(_ waiter: Waiter<QUICCloseReason>) {
        if let reason = session?.closeReason { return waiter.finish(.success(reason)) }
        closeWaiters.append(waiter)
    }

    func forgetCancelled() {
        closeWaiters.removeAll { !$0.isWaiting }
        readyWaiters.removeAll { !$0.waiter.isWaiting }
        waiting.removeAll { !$0.waiter.isWaiting }
    }

    private func progress() {
        guard let session else { return }
        let ready = readyWaiters
        readyWaiters = []
        for (isEarly, waiter) in ready {
            if session.isHandshakeComplete || (isEarly && isEarlyPossible) {
                waiter.finish(.success(()))
            } else {
                readyWaiters.append((isEarly, waiter))
            }
        }
        sendWaiting()
    }

    private func closed(_ reason: QUICCloseReason) {
        let isConnected = session?.isHandshakeComplete ?? false
        for (_, waiter) in readyWaiters { waiter.finish(.failure(HTTP3Error.connectFailed(reason))) }
        readyWaiters = []
        let error = isConnected ? HTTP3Error.closed(reason) : HTTP3Error.connectFailed(reason)
        for (_, waiter) in waiting { waiter.finish(.failure(error.unsent)) }
        waiting.removeAll()
        for waiter in closeWaiters { waiter.finish(.success(reason)) }
        closeWaiters = []
    }

    // MARK: Requests

    /// Sends a request, or lets it wait for what it needs.
    func open(_ request: Request, _ waiter: Waiter<OnLoop<Exchange>>) {
        guard let session else { return }
        if let error = refusal(session) { return waiter.finish(.failure(error)) }
        guard waiting.count < session.limits.waitingRequests else {
            return waiter.finish(
                .failure(
                    HTTP3Error(
                        .tooManyRequests, "\(waiting.count) requests wait for a stream",
                        advice: "Send it later, or on another connection.")))
        }
        waiting.append((request, waiter))
        sendWaiting()
    }

    /// - Returns: nil: it must wait.
    func openAtOnce(_ request: Request) throws -> OnLoop<Exchange>? {
        guard let session else { return nil }
        if let error = refusal(session) { throw error }
        guard !session.isHandshakeComplete || waiting.isEmpty, mayLeave(request, session) else { return nil }
        return try send(request, session).get()
    }

    private func refusal(_ session: Session) -> HTTP3Error? {
        if let reason = session.closeReason { return HTTP3Error.closed(reason).unsent }
        return session.state == .draining || session.state == .closed ? .goingAway : nil
    }

    private func mayLeave(_ request: Request, _ session: Session) -> Bool {
        session.isHandshakeComplete || (isEarlyPossible && request.mayBeEarly)
    }

    private func sendWaiting() {
        guard let session else { return }
        if let error = refusal(session) {
            for (_, waiter) in waiting { waiter.finish(.failure(error)) }
            return waiting.removeAll()
        }
        var index = 0
        while index < waiting.count {
            let (request, waiter) = waiting[index]
            guard waiter.isWaiting else {
                waiting.remove(at: index)
                continue
            }
            // Before the handshake those that may leave pass the others.
            guard mayLeave(request, session) else {
                index += 1
                continue
            }
            let outcome = send(request, session)
            if case .success(nil) = outcome { return }
            waiting.remove(at: index)
            guard waiter.claim() else {
                // Cancelled between two looks: the stream is open, and given up.
                if case .success(let exchange?) = outcome { exchange.perform { $0.cancel() } }
                continue
            }
            waiter.resume(
                with: outcome.flatMap { exchange in exchange.map { .success($0) } ?? .failure(HTTP3Error.goingAway) })
        }
    }

    /// - Returns: nil: the server allows no more streams now.
    private func send(_ request: Request, _ session: Session) -> Result<OnLoop<Exchange>?, any Error> {
        do {
            var message = request.request
            if let priority = request.priority, priority != .standard {
                message.headerFields[.priority] = priority.fieldValue
            }
            // What can't be sent takes no stream: the server would see one that was reset, and takes few of those.
            let length = try session.gather(message)
            guard let stream = try session.connection.openStream(bidirectional: true) else { return .success(nil) }
            let exchange = Exchange(stream, session: session)
            exchange.onInformational = request.onInformational
            if let priority = request.priority { exchange.priority = priority }
            session.add(exchange)
            session.connection.setPriority(exchange.priority.stream, of: stream)
            do {
                try exchange.sendRequest(
                    message.method, length: length, body: request.body, trailers: request.trailers,
                    finish: request.isWhole)
            } catch {
                exchange.abandon(.requestCancelled, .cancelled)
                throw error
            }
            if !session.isHandshakeComplete {
                exchange.isEarly = true
                session.meter.count(.earlyRequests)
            }
            return .success(OnLoop(exchange, eventLoop: session.connection.eventLoop))
        } catch {
            return .failure(error)
        }
    }

    /// Tells the server of another priority of a request that is under way (RFC 9218 section 7).
    func prioritize(_ exchange: Exchange, _ priority: HTTP3Priority) {
        guard let session, session.exchange(exchange.id) === exchange, !exchange.isReceivingOver else { return }
        exchange.setPriority(priority)
        var payload = ByteBuffer()
        payload.writeVarint(exchange.id.rawValue)
        payload.writeString(priority.fieldValue)
        session.outbound.control.writeFrameHeader(FrameType.priorityUpdateRequest, length: payload.readableBytes)
        session.outbound.control.writeBuffer(&payload)
        session.flushOutbound()
    }
}
