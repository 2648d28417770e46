import LonglineSession

/// What a device asked for once its handshake was complete, and before the link is its device's session: in the order in which it came.
///
/// It waits where the tenant has a device policy, while the store gives the place: of a link that does not get it nothing takes effect.
/// Bounded: the session has few requests open at a time, and of places read, which have no answer, only so many wait.
struct HeldRequests {
    private var actions: [ServerAction] = []

    /// With more than these no place read waits.
    static let limit = 256

    /// - Returns: false when there is no room: nothing waits for an answer then.
    mutating func hold(_ action: ServerAction) -> Bool {
        if case .markRead = action, actions.count >= Self.limit { return false }
        actions.append(action)
        return true
    }

    mutating func takeAll() -> [ServerAction] {
        defer { actions = [] }
        return actions
    }

    mutating func removeAll() { actions = [] }
}

extension ServerAction {
    /// Whether it changes what lasts, or what others are told, or by which login the session asks for its place.
    var takesEffect: Bool {
        switch self {
        case .join, .leave, .manage, .markRead, .changeConversation, .refresh, .logout, .eraseAccount: true
        default: false
        }
    }
}

extension SessionHost {
    /// Keeps a request until this is the device's session.
    func hold(_ request: ServerAction) {
        if !heldRequests.hold(request) { loop.statistics.readsDropped += 1 }
    }

    /// This is the device's session now.
    func performHeld() {
        for request in heldRequests.takeAll() { perform(request) }
    }
}
