import LonglineSession
import LonglineWire
import NIOCore

/// Requests for members: asked on the present link only, a few at a time, the rest in their order.
extension ConnectionDriver {
    /// Someone who waits for a page.
    struct MembersWaiter {
        var request: MembersRequest
        var isSent = false
        var changes = RoomChanges()
        var timer: DriverTimer?
        var done: (Result<MemberPage, ClientError>) -> Void
    }

    private static let maximumMemberRequests = 64

    func requestMembers(
        _ request: MembersRequest, timeout: TimeAmount, done: @escaping (Result<MemberPage, ClientError>) -> Void
    ) -> UInt64 {
        lastMembersRequest += 1
        let id = lastMembersRequest
        if let error = membersRefusal(request) {
            done(.failure(error))
            return id
        }
        var waiter = MembersWaiter(request: request, done: done)
        waiter.request.request = id
        waiter.timer = schedule(in: timeout) { driver in
            driver.endMembers(id, ClientError(.timedOut, message: "no page of members came in time"))
        }
        membersWaiters[id] = waiter
        sendMembersRequests()
        pump()
        return id
    }

    /// Why a request can't be made now, or nil.
    private func membersRefusal(_ request: MembersRequest) -> ClientError? {
        let limit = FrameLimits.maximumMembers
        guard (1...UInt64(limit)).contains(request.limit) else {
            return ClientError(
                .refused, message: "a page of \(request.limit) members", advice: "ask for 1 to \(limit)",
                refusal: .invalidRange)
        }
        if case .stopped(let code, let reason) = phase { return ClientError(stoppedBy: code, reason: reason) }
        guard case .connected = phase else {
            return ClientError(
                .notConnected, message: "the members of a room need a connection, and there is none now",
                advice: "ask again when the state is connected")
        }
        guard membersWaiters.count < Self.maximumMemberRequests else {
            return ClientError(.tooManyRequests, message: "\(Self.maximumMemberRequests) requests for members wait")
        }
        return nil
    }

    /// The app does not wait any more; an answer that still comes is dropped.
    func cancelMembers(_ id: UInt64) {
        endMembers(id, ClientError(.disconnected, message: "the wait was cancelled"))
    }

    func failMembers(_ error: ClientError) {
        for id in membersWaiters.keys { endMembers(id, error) }
    }

    private func endMembers(_ id: UInt64, _ error: ClientError) {
        guard let waiter = membersWaiters.removeValue(forKey: id) else { return }
        waiter.timer?.cancel()
        waiter.done(.failure(error))
    }

    /// Sends what was not sent, as far as the session takes requests; an answer makes room for the next.
    private func sendMembersRequests() {
        guard case .connected = phase else { return }
        for (id, waiter) in membersWaiters.sorted(by: { $0.key < $1.key }) where !waiter.isSent {
            guard session.listMembers(waiter.request, now: clock.now()) else { return }
            membersWaiters[id]?.isSent = true
        }
    }

    func membersArrived(_ page: MembersPage, _ told: RoomSettings?) {
        defer { sendMembersRequests() }
        guard let waiter = membersWaiters.removeValue(forKey: page.request) else { return }
        waiter.timer?.cancel()
        if let refusal = page.refusal {
            waiter.done(
                .failure(
                    ClientError(
                        .refused,
                        message: "the members of room \(waiter.request.room) were refused (\(refusal.rawValue))",
                        advice: Self.advice(refusal), refusal: refusal)))
        } else {
            waiter.done(
                .success(
                    MemberPage(
                        total: Int(clamping: page.total), members: page.members, hasMore: page.more,
                        settings: settings(told, of: waiter.request.room, waiter.changes))))
        }
    }
}
