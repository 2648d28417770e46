import Logging
import LonglineSession
import LonglineWire
import NIOCore

/// Whom the app wants to be told of, for as long as it wants that: said again on each link.
///
/// ```
///   watch() --> request --sent, answered--> accepted --told of each--> watch() returns
///                  ^                            |
///                  '--------- new link ---------'
/// ```
struct PresenceWishes {
    /// Users that the service tells of, or did on the link before.
    var accepted: Set<UserID> = []
    /// Requests without an answer, some of which wait to be sent.
    var requests: [UInt64: Request] = [:]
    /// Who waits for what, by the call's number.
    var waiters: [UInt64: Waiter] = [:]
    var lastRequest: UInt64 = 0
    /// How often the service refused on this link what it had accepted before.
    var refusals = 0
    /// What the app decided in this process.
    var visibility: PresenceVisibility?

    struct Request {
        var users: [UserID]
        /// The call that it is part of; nil: what was accepted before is said again.
        var waiter: UInt64?
        var isSent = false
    }

    struct Waiter {
        /// Requests without an answer.
        var requests: Set<UInt64>
        /// Users that the service did not tell of yet.
        var unknown: Set<UserID>
        /// Users that nothing else asked for when this was called.
        var new: Set<UserID>
        var done: (Result<Void, ClientError>) -> Void
    }

    /// Where one user in a thousand may not be watched any more that is found in 7 refusals. A token that lost the right for all of them
    /// would cost two thousand.
    static let halvedRefusals = 32

    /// Whom the app watches or is about to.
    var all: Set<UserID> { requests.values.reduce(into: accepted) { $0.formUnion($1.users) } }

    mutating func add(_ users: [UserID], waiter: UInt64?) -> Set<UInt64> {
        var numbers: Set<UInt64> = []
        for start in stride(from: 0, to: users.count, by: FrameLimits.maximumPresenceUsers) {
            lastRequest += 1
            let part = users[start..<min(start + FrameLimits.maximumPresenceUsers, users.count)]
            requests[lastRequest] = Request(users: Array(part), waiter: waiter)
            numbers.insert(lastRequest)
        }
        return numbers
    }
}

extension ConnectionDriver {
    /// - Returns: the number by which the wait is known.
    func watch(_ users: [UserID], done: @escaping (Result<Void, ClientError>) -> Void) -> UInt64 {
        presence.lastRequest += 1
        let id = presence.lastRequest
        let wanted = Set(users)
        if let error = watchRefusal(wanted) {
            done(.failure(error))
            return id
        }
        let new = wanted.subtracting(presence.all)
        let numbers = presence.add(wanted.sorted { $0.description < $1.description }, waiter: id)
        presence.waiters[id] = PresenceWishes.Waiter(requests: numbers, unknown: wanted, new: new, done: done)
        sendPresenceRequests()
        pump()
        return id
    }

    private func watchRefusal(_ users: Set<UserID>) -> ClientError? {
        switch phase {
        case .idle: return ClientError(.notConnected, message: "the client isn't connected", advice: "call connect()")
        case .stopped(let code, let reason): return ClientError(stoppedBy: code, reason: reason)
        case .preparing, .connecting, .connected, .waiting: break
        }
        guard presence.all.union(users).count <= PresenceBoard.maximumUsers else {
            return ClientError(
                .refused, message: "more than \(PresenceBoard.maximumUsers) users are watched",
                advice: "unwatch those that the app does not show", refusal: .tooManySubscriptions)
        }
        return nil
    }

    /// The app does not wait any more; the users stay watched.
    func cancelWatch(_ id: UInt64) {
        endWatch(id, .failure(ClientError(.disconnected, message: "the wait was cancelled; the users are watched")))
    }

    private func endWatch(_ id: UInt64, _ result: Result<Void, ClientError>) {
        presence.waiters.removeValue(forKey: id)?.done(result)
    }

    func unwatch(_ users: [UserID]) {
        let gone = Set(users)
        presence.accepted.subtract(gone)
        for (number, request) in presence.requests {
            let left = request.users.filter { !gone.contains($0) }
            // One that was sent is answered all the same.
            if left.isEmpty, !request.isSent {
                presence.requests[number] = nil
            } else {
                presence.requests[number]?.users = left
            }
        }
        outlets.presence.forget(gone)
        let ordered = gone.sorted { $0.description < $1.description }
        for start in stride(from: 0, to: ordered.count, by: FrameLimits.maximumPresenceUsers) {
            let part = ordered[start..<min(start + FrameLimits.maximumPresenceUsers, ordered.count)]
            session.unsubscribe(Array(part), now: clock.now())
        }
        for (id, waiter) in presence.waiters {
            var left = waiter
            left.unknown.subtract(gone)
            left.requests = left.requests.filter { presence.requests[$0] != nil }
            presence.waiters[id] = left
            finishIfKnown(id)
        }
        pump()
    }

    func setVisibility(_ visibility: PresenceVisibility) {
        presence.visibility = visibility
        _ = session.setVisibility(visibility, now: clock.now())
        pump()
    }

    // MARK: The connection

    /// A session is up: everything is said again.
    func presenceConnected() {
        if let visibility = presence.visibility { _ = session.setVisibility(visibility, now: clock.now()) }
        presence.refusals = 0
        presence.requests = presence.requests.filter { $0.value.waiter != nil }
        for number in presence.requests.keys { presence.requests[number]?.isSent = false }
        _ = presence.add(presence.accepted.sorted { $0.description < $1.description }, waiter: nil)
        sendPresenceRequests()
    }

    /// The client ends, for now or for good.
    func failPresence(_ error: ClientError) {
        outlets.presence.connectionLost()
        presence.requests = [:]
        for id in presence.waiters.keys { endWatch(id, .failure(error)) }
    }

    /// Sends what was not sent on this link, as far as the session takes requests; an answer makes room for the next.
    private func sendPresenceRequests() {
        guard case .connected = phase else { return }
        for (number, request) in presence.requests.sorted(by: { $0.key < $1.key }) where !request.isSent {
            // All were unwatched meanwhile.
            guard !request.users.isEmpty else {
                endRequest(number, of: request.waiter)
                continue
            }
            let wish = PresenceRequest(request: number, users: request.users)
            guard session.subscribe(wish, now: clock.now()) else { return }
            presence.requests[number]?.isSent = true
        }
    }

    // MARK: The service

    func presenceAnswered(_ answer: PresenceAnswer) {
        defer { sendPresenceRequests() }
        guard let request = presence.requests[answer.request], request.isSent else { return }
        guard let refusal = answer.refusal else {
            presence.accepted.formUnion(request.users)
            presence.refusals = 0
            return endRequest(answer.request, of: request.waiter)
        }
        if refusal.isTemporary { return askAgain(answer) }
        presence.requests[answer.request] = nil
        logger.warning(
            "presence refused", metadata: ["code": "\(refusal.rawValue)", "users": "\(request.users.count)"])
        if let id = request.waiter { return refuseWatch(id, refusal) }
        // They were allowed before: a fresh token has fewer rights. It may lack that of one of them only.
        presence.refusals += 1
        if refusal == .forbidden, request.users.count > 1, presence.refusals <= PresenceWishes.halvedRefusals {
            let half = request.users.count / 2
            _ = presence.add(Array(request.users.prefix(half)), waiter: nil)
            _ = presence.add(Array(request.users.dropFirst(half)), waiter: nil)
            return
        }
        presence.accepted.subtract(request.users)
        outlets.presence.forget(request.users)
        // The link before may have ended between the service's answer and its word of where they are: nobody tells that any more.
        for (id, waiter) in presence.waiters where !waiter.unknown.isDisjoint(with: request.users) {
            refuseWatch(id, refusal)
        }
    }

    private func askAgain(_ answer: PresenceAnswer) {
        let generation = generation
        _ = schedule(in: .milliseconds(Int64(clamping: min(max(answer.retryAfter, 100), 60_000)))) { driver in
            guard driver.generation == generation, driver.presence.requests[answer.request] != nil else { return }
            driver.presence.requests[answer.request]?.isSent = false
            driver.sendPresenceRequests()
            driver.pump()
        }
    }

    /// None of a call that was refused in part is watched, but what was before.
    private func refuseWatch(_ id: UInt64, _ refusal: RefusalCode) {
        let parts = presence.requests.filter { $0.value.waiter == id }
        for number in parts.keys { presence.requests[number] = nil }
        let waiter = presence.waiters[id]
        endWatch(
            id,
            .failure(
                ClientError(
                    .refused, message: "presence was refused (\(refusal.rawValue))",
                    advice: refusal == .forbidden ? "the token needs the right presence for each of the users" : "",
                    refusal: refusal)))
        // Parts that were accepted, or will be, count for nothing; what another call asked for meanwhile does.
        let others = presence.requests.values.reduce(into: Set<UserID>()) { $0.formUnion($1.users) }
        let unwanted = (waiter?.new ?? []).subtracting(others)
        if !unwanted.isEmpty { unwatch(Array(unwanted)) }
    }

    func presenceArrived(_ update: PresenceUpdate) {
        guard presence.all.contains(update.user) else { return }
        outlets.presence.learn(update)
        for id in presence.waiters.keys {
            presence.waiters[id]?.unknown.remove(update.user)
            finishIfKnown(id)
        }
    }

    /// Nothing is to be asked any more: that much less for the call to wait for.
    private func endRequest(_ number: UInt64, of waiter: UInt64?) {
        presence.requests[number] = nil
        guard let waiter else { return }
        presence.waiters[waiter]?.requests.remove(number)
        finishIfKnown(waiter)
    }

    private func finishIfKnown(_ id: UInt64) {
        guard let waiter = presence.waiters[id], waiter.requests.isEmpty, waiter.unknown.isEmpty else { return }
        endWatch(id, .success(()))
    }
}
