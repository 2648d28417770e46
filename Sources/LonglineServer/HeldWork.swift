import LonglineSession
import LonglineStore

/// What waits until the link is its device's session, in the order in which it came here: publishes in early data for the handshake,
/// and what takes effect behind it for the session's place, which the store gives where the tenant has a device policy. Of a link that
/// does not get it nothing takes effect.
///
/// One line, as the order counts: a publish into a room is refused for good ahead of the join that came before it. Requests in early
/// data are not among it: the session keeps them, and they come behind all publishes of that.
/// Bounded: publishes by their number and bytes, of the session and of the loop; the session has few requests open at a time, and of
/// places read, which have no answer, only so many wait.
struct HeldWork {
    enum Item {
        case publish(AppendRequest)
        case request(ServerAction)
    }

    private(set) var items: [Item] = []
    /// The publishes among them.
    private(set) var publishes = WaitingPublishes()

    /// With more requests than these no place read waits.
    static let requestLimit = 256

    /// The caller saw to it that there is room.
    mutating func hold(_ publish: AppendRequest) {
        publishes.add(publish)
        items.append(.publish(publish.inOwnStorage))
    }

    /// - Returns: false when there is no room: nothing waits for an answer then.
    mutating func hold(_ request: ServerAction) -> Bool {
        if case .markRead = request, items.count - publishes.count >= Self.requestLimit { return false }
        items.append(.request(request))
        return true
    }
}

extension ServerAction {
    /// Whether it is a request that changes what lasts, or what others are told, or by which login the session asks for its place.
    ///
    /// `storeCursor` and `delivered` do as well, and wait for nothing: they say what the device has got, which is true whoever gets the
    /// place. Publishes wait by themselves, signals are dropped until then, and what concerns presence is noted and told then.
    var takesEffect: Bool {
        switch self {
        case .join, .leave, .manage, .markRead, .changeConversation, .refresh, .logout, .eraseAccount: true
        case .storeCursor, .delivered: false
        case .append, .refuse, .signal, .signalDropped, .sendSignal, .watch, .unwatch, .setVisibility: false
        case .read, .readPayload, .readHistory, .listMembers, .listConversations: false
        case .authenticate, .established, .forget, .close: false
        case .openLane, .prioritize, .send, .finishLane, .awaitDelivery: false
        }
    }
}

extension SessionHost {
    /// Keeps a publish until this is the device's session.
    func hold(_ publish: AppendRequest) {
        guard held.publishes.count < core.limits.appendsPerSession,
            hasRoom(for: publish, beside: held.publishes, loop.heldPublishes)
        else { return refuseWithoutRoom(publish) }
        loop.heldPublishes.add(publish)
        held.hold(publish)
    }

    /// Keeps a request until this is the device's session.
    func hold(_ request: ServerAction) {
        if !held.hold(request) { loop.statistics.readsDropped += 1 }
    }

    /// This is the device's session now.
    func performHeld() {
        let items = held.items
        dropHeld()
        for item in items {
            switch item {
            case .publish(let publish): submit(publish)
            case .request(let request): perform(request)
            }
        }
    }

    func dropHeld() {
        loop.heldPublishes.remove(all: held.publishes)
        held = HeldWork()
    }
}
