import LonglineSession
import LonglineWire
import NIOCore

/// Requests for history: asked on the present link only, a few at a time, the rest in their order.
extension ConnectionDriver {
    /// Someone who waits for a page.
    struct HistoryWaiter {
        var request: HistoryRequest
        var isSent = false
        var timer: DriverTimer?
        var done: (Result<HistoryPage, ClientError>) -> Void
    }

    private static let maximumHistoryRequests = 64

    func requestHistory(
        _ request: HistoryRequest, timeout: TimeAmount, done: @escaping (Result<HistoryPage, ClientError>) -> Void
    ) -> UInt64 {
        lastHistoryRequest += 1
        let id = lastHistoryRequest
        if let error = historyRefusal(request) {
            done(.failure(error))
            return id
        }
        var waiter = HistoryWaiter(request: request, done: done)
        waiter.request.request = id
        waiter.timer = schedule(in: timeout) { driver in
            driver.endHistory(id, ClientError(.timedOut, message: "no page of history came in time"))
        }
        historyWaiters[id] = waiter
        sendHistoryRequests()
        pump()
        return id
    }

    /// Why a request can't be made now, or nil.
    private func historyRefusal(_ request: HistoryRequest) -> ClientError? {
        let limit = FrameLimits.maximumHistoryEntries
        guard (1...UInt64(limit)).contains(request.limit) else {
            return ClientError(
                .refused, message: "a page of history of \(request.limit) entries", advice: "ask for 1 to \(limit)",
                refusal: .invalidRange)
        }
        guard request.from <= FrameLimits.maximumNumber else {
            return ClientError(
                .refused, message: "history from an offset that can't be",
                advice: "take places from messages and pages",
                refusal: .invalidRange)
        }
        if case .stopped(let code, let reason) = phase { return ClientError(stoppedBy: code, reason: reason) }
        guard case .connected = phase else {
            return ClientError(
                .notConnected, message: "history needs a connection, and there is none now",
                advice: "ask again when the state is connected")
        }
        guard historyWaiters.count < Self.maximumHistoryRequests else {
            return ClientError(.tooManyRequests, message: "\(Self.maximumHistoryRequests) requests for history wait")
        }
        return nil
    }

    /// The app does not wait any more; an answer that still comes is dropped.
    func cancelHistory(_ id: UInt64) {
        endHistory(id, ClientError(.disconnected, message: "the wait was cancelled"))
    }

    func failHistory(_ error: ClientError) {
        for id in historyWaiters.keys { endHistory(id, error) }
    }

    private func endHistory(_ id: UInt64, _ error: ClientError) {
        guard let waiter = historyWaiters.removeValue(forKey: id) else { return }
        waiter.timer?.cancel()
        waiter.done(.failure(error))
    }

    /// Sends what was not sent, as far as the session takes requests; an answer makes room for the next.
    private func sendHistoryRequests() {
        guard case .connected = phase else { return }
        for (id, waiter) in historyWaiters.sorted(by: { $0.key < $1.key }) where !waiter.isSent {
            guard session.history(waiter.request, now: clock.now()) else { return }
            historyWaiters[id]?.isSent = true
        }
    }

    func historyArrived(_ result: HistoryResult) {
        defer { sendHistoryRequests() }
        let answer = result.answer
        guard let waiter = historyWaiters.removeValue(forKey: answer.request) else { return }
        waiter.timer?.cancel()
        if let refusal = answer.refusal {
            waiter.done(.failure(Self.historyError(refusal, answer, of: waiter.request.channel)))
        } else {
            waiter.done(.success(page(result, waiter.request)))
        }
    }

    private static func historyError(
        _ refusal: RefusalCode, _ answer: HistoryAnswer, of channel: ChannelID
    ) -> ClientError {
        let advice =
            switch refusal {
            case .epochChanged: "the channel's log was made anew: ask again without a place"
            case .overloaded, .storageFull: ClientError.againAdvice(answer.retryAfter)
            case .invalidRange: "take places from messages and pages, and 1 to 100 entries"
            case .unknownChannel: "ask for this user's inbox or a room that the user is a member of"
            default: ""
            }
        return ClientError(
            .refused, message: "history of \(channel) was refused (\(refusal.rawValue))", advice: advice,
            refusal: refusal, retryAfter: ClientError.retryAfter(answer.retryAfter))
    }

    private func page(_ result: HistoryResult, _ request: HistoryRequest) -> HistoryPage {
        let answer = result.answer
        var messages: [Message] = []
        var absent: [Skip] = []
        for item in result.items {
            switch item {
            case .skip(let skip): absent.append(skip)
            case .entry(let entry):
                messages.append(Message(entry, in: request.channel, epoch: answer.epoch, isOwn: isOwn(entry)))
            }
        }
        // "Before" leaves out its place, and the page holds everything above its start.
        let offset = request.direction == .older ? answer.start + 1 : answer.end
        return HistoryPage(
            channel: request.channel, messages: messages, absent: absent, hasMore: answer.more,
            next: Position(epoch: answer.epoch, offset: offset))
    }
}
