public import LonglineWire
public import NIOCore

/// Presence: whom the app wants to be told of is its driver's affair, which says it again on each link.
extension ClientSession {
    private static let maximumPresenceRequests = 16

    /// Asks to be told of users, 1 to ``/LonglineWire/FrameLimits/maximumPresenceUsers``.
    /// - Returns: false while not connected, or when too many requests wait.
    public mutating func subscribe(_ request: PresenceRequest, now: NIODeadline) -> Bool {
        guard phase == .connected, presenceRequests.count < Self.maximumPresenceRequests,
            presenceRequests.insert(request.request).inserted
        else { return false }
        send(.subscribe(request), lane: .control, owed: true, now: now)
        return true
    }

    /// Asks to be told of users no more; no users means none at all. Without a connection there is nothing to say.
    public mutating func unsubscribe(_ users: [UserID], now: NIODeadline) {
        guard phase == .connected else { return }
        send(.unsubscribe(PresenceEnd(users: users)), lane: .control, owed: false, now: now)
    }

    /// Says what others see of this user.
    /// - Returns: false while not connected.
    public mutating func setVisibility(_ visibility: PresenceVisibility, now: NIODeadline) -> Bool {
        guard phase == .connected else { return false }
        send(.visibility(visibility), lane: .control, owed: false, now: now)
        return true
    }

    mutating func processPresence(_ answer: PresenceAnswer) {
        if presenceRequests.remove(answer.request) != nil { actions.append(.presenceAnswered(answer)) }
    }
}
