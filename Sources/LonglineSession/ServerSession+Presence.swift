public import LonglineWire
public import NIOCore

/// Presence as one session sees it: whom it is told of, and what it was not told yet.
///
/// ```
///   SUBSCRIBE --right, limits--> .watch --host--> watched(): PRESENCE_ANSWER
///                                   presenceChanged() --> PresenceFeed --foreground, lane 0 writable--> PRESENCE
/// ```
///
/// Bounded: so many users, and of each the newest state. What does not leave now (a device in the background, a lane that is
/// backed up) is replaced by what comes after it.
struct PresenceFeed: Sendable {
    /// Whom the device is told of.
    fileprivate(set) var users: Set<UserID> = []
    /// The users of requests without an answer, and which of them the device was not told of before.
    fileprivate var requests: [UInt64: (users: Set<UserID>, new: Set<UserID>)] = [:]
    fileprivate var updates: LatestQueue<UserID, PresenceUpdate>
    /// Whether what waits may leave though nobody looks: something else has woken the device.
    fileprivate var isReleased = false
    fileprivate var isWritable = true

    init(limit: Int) { updates = LatestQueue(limit: limit) }

    /// The device is told of them no more. What waits of them would take the place of what it is told of.
    fileprivate mutating func forget(_ gone: Set<UserID>) {
        users.subtract(gone)
        updates.remove(gone)
    }

    mutating func removeAll() {
        users = []
        requests = [:]
        updates.removeAll()
    }
}

extension ServerSession {
    private static let maximumPresenceRequests = 16

    // MARK: The client

    mutating func processSubscribe(_ request: PresenceRequest, now: NIODeadline) {
        guard presence.requests[request.request] == nil else {
            return violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
        }
        if let refusal = refusal(of: request) {
            // As long as a client that asks too often is told to wait anywhere.
            let answer = PresenceAnswer(
                request: request.request, refusal: refusal, retryAfter: refusal.isTemporary ? 1_000 : 0)
            actions.append(.send(.presenceAnswer(answer), lane: .control))
            return
        }
        let users = Set(request.users)
        presence.requests[request.request] = (users, users.subtracting(presence.users))
        presence.users.formUnion(users)
        actions.append(.watch(request))
    }

    private func refusal(of request: PresenceRequest) -> RefusalCode? {
        guard let identity else { return .forbidden }
        let mayWatch = request.users.allSatisfy { $0 == identity.user || identity.may(.presence, .user($0)) }
        guard mayWatch else { return .forbidden }
        guard presence.requests.count < Self.maximumPresenceRequests else { return .overloaded }
        let count = presence.users.count + Set(request.users).subtracting(presence.users).count
        return count <= configuration.maximumPresenceUsers ? nil : .tooManySubscriptions
    }

    mutating func processUnsubscribe(_ end: PresenceEnd, now: NIODeadline) {
        let users = end.users.isEmpty ? presence.users : presence.users.intersection(end.users)
        guard !users.isEmpty else { return }
        presence.forget(users)
        actions.append(.unwatch(users))
    }

    // MARK: The host

    /// Answers ``ServerAction/watch(_:)``. The states themselves come with ``presenceChanged(_:now:)``.
    /// - Parameter refusal: why the host does not watch any of them, or nil.
    public mutating func watched(
        _ request: PresenceRequest, refusal: RefusalCode?, retryAfter: UInt64, now: NIODeadline
    ) {
        guard case .up = phase, let asked = presence.requests.removeValue(forKey: request.request) else { return }
        if refusal != nil {
            // What another request asks for as well is that one's affair.
            presence.forget(presence.requests.values.reduce(asked.new) { $0.subtracting($1.users) })
        }
        let answer = PresenceAnswer(request: request.request, refusal: refusal, retryAfter: retryAfter)
        actions.append(.send(.presenceAnswer(answer), lane: .control))
    }

    /// A user's state, at first and after each change.
    public mutating func presenceChanged(_ update: PresenceUpdate, now: NIODeadline) {
        guard case .up = phase, presence.users.contains(update.user) else { return }
        presence.updates.put(update, for: update.user)
    }

    /// A fresh credential may not allow to be told of some users any more: they look like users that were never there, and nothing of
    /// theirs is said from now on.
    mutating func presenceRightsChanged() {
        guard let identity else { return }
        let lost = presence.users.filter { $0 != identity.user && !identity.may(.presence, .user($0)) }
        guard !lost.isEmpty else { return }
        presence.forget(lost)
        // Else the device would show for good what was so last.
        for user in lost.sorted(by: { $0.description < $1.description }) {
            let update = PresenceUpdate(user: user, state: .offline, lastSeen: 0)
            actions.append(.send(.presence(update), lane: .control))
        }
        actions.append(.unwatch(lost))
    }

    /// What waits may leave with what is sent now.
    mutating func releasePresence() { presence.isReleased = true }

    mutating func presenceWritable(_ writable: Bool) { presence.isWritable = writable }

    /// The next state for the device, behind what else there is. In the background they wait for something that wakes the
    /// device anyway, each user's newest only.
    mutating func nextPresence() -> ServerAction? {
        guard presence.isWritable, hold.mode == .foreground || presence.isReleased else { return nil }
        if let next = presence.updates.popFirst() { return .send(.presence(next.element), lane: .control) }
        presence.isReleased = false
        return nil
    }
}
