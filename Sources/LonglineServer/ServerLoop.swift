import DequeModule
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// The sessions of one event loop, and what they share: subscriptions, deadlines, the append and the read queue.
///
/// Confined to its loop. Loops talk to each other in values only: a wake is one hop per loop and batch (``LoopReference``).
/// Everything here is counted in a plain struct, read by a snapshot's hop.
final class ServerLoop {
    let core: ServerCore
    let eventLoop: any EventLoop
    /// Runs the loop's calls of the store; nil: the tasks' threads do.
    let executor: LoopExecutor?
    /// Every loop of the server but this one.
    private(set) var siblings: [LoopReference] = []
    /// Every loop of the server, this one among them, in the same order on each.
    private(set) var loops: [LoopReference] = []
    /// This loop's place among ``loops``.
    private(set) var index = 0

    var statistics = ServerStatistics()
    var history = WakeHistory()
    var appends = AppendQueue()
    /// What of the sessions waits until they are established, and for the app's decisions or a change of its room, before it gets to
    /// ``appends``. Apart: who fills the one does not take the others' place in the other.
    var heldPublishes = WaitingPublishes()
    var undecidedPublishes = WaitingPublishes()
    /// What the app's server publishes, before it gets to ``appends``.
    var lookups = ServiceLookups()
    var reads = ReadQueue()
    var progress = ProgressQueue()
    var signals: SignalRelay
    var presence: LoopPresence
    var fanOut = FanOut()

    private var hosts: [UInt64: SessionHost] = [:]
    private var users: [UserKey: [SessionHost]] = [:]
    /// By the token that their credential is or came from.
    private var tokens: [TokenKey: [SessionHost]] = [:]
    private var subscriptions = SubscriptionTable<SessionHost>()
    /// The sessions of each tenant: who hears what is broadcast.
    private var tenants: [TenantID: [ObjectIdentifier: SessionHost]] = [:]
    private var timers = LoopTimers()
    private var timer: Scheduled<Void>?
    private var timerDeadline: NIODeadline?
    private var dirty: Deque<SessionHost> = []
    private var draining: Close?
    /// Store and authenticator calls of sessions under way.
    private var work = WorkTracker()
    private var idleWaiters: [EventLoopPromise<Void>] = []

    /// Sessions worked off in one go, before the loop's sockets get their turn.
    static let drainsPerTick = 256

    init(core: ServerCore, eventLoop: any EventLoop) {
        eventLoop.preconditionInEventLoop()
        self.core = core
        self.eventLoop = eventLoop
        executor = core.store.handsOverAtOnce ? LoopExecutor(eventLoop: eventLoop) : nil
        signals = SignalRelay(limit: core.limits.signalsPerLoop)
        presence = LoopPresence(limits: core.limits)
    }

    /// Tells the loop of the others; once, before the first link.
    func connect(to all: [LoopReference]) {
        siblings = all.filter { $0.eventLoop !== eventLoop }
        loops = all
        index = all.firstIndex { $0.eventLoop === eventLoop } ?? 0
    }

    var reference: LoopReference {
        LoopReference(eventLoop: eventLoop, loop: NIOLoopBound(self, eventLoop: eventLoop))
    }

    // MARK: Links

    /// A handler for a link that comes up on this loop.
    func makeHost() -> SessionHost { SessionHost(loop: self, id: core.nextLinkID()) }

    /// Takes a link in.
    /// - Returns: how to close it instead, when there is no room.
    func add(_ host: SessionHost, _ admission: LinkAdmission) -> Close? {
        hosts[host.id] = host
        statistics.connectionsAccepted += 1
        return draining.map { spread($0) } ?? admission.refusal
    }

    /// Forgets a link, which ``add(_:)`` took in.
    func remove(_ host: SessionHost) {
        guard hosts.removeValue(forKey: host.id) != nil else { return }
        timers.remove(host.id)
        checkIdle()
    }

    /// Ends every link, and every one to come. `retryAfter` is spread over the clients.
    func drain(_ close: Close) {
        draining = close
        for host in Array(hosts.values) { host.end(spread(close)) }
    }

    /// Ends every link to come, and none that is up.
    func refuseLinks(_ close: Close) { draining = close }

    /// Ends some of the links. `retryAfter` is spread over the clients.
    /// - Returns: how many; fewer than `limit` when no more are up.
    func end(atMost limit: Int, _ close: Close) -> Int {
        let chosen = Array(hosts.values.lazy.filter { $0.phase != .ended }.prefix(limit))
        for host in chosen { host.end(spread(close)) }
        return chosen.count
    }

    /// Links that are up, without those that only wait for their last bytes to arrive.
    var connections: Int { hosts.values.count { $0.phase != .ended } }

    /// Succeeds once no link and no store call is left.
    func whenIdle(_ promise: EventLoopPromise<Void>) {
        idleWaiters.append(promise)
        checkIdle()
    }

    /// Who waits for that, for tests.
    var idleWaiterCount: Int { idleWaiters.count }

    /// Who waits for work that is under way, for tests.
    var workWaiterCount: Int { work.waiterCount }

    func checkIdle() {
        guard !idleWaiters.isEmpty, hosts.isEmpty, work.isEmpty, appends.isEmpty, reads.isEmpty, progress.isEmpty
        else { return }
        for waiter in idleWaiters { waiter.succeed() }
        idleWaiters = []
    }

    /// A session's work leaves the loop.
    func beginWork() -> UInt64 { work.begin() }

    /// A session's work came back.
    func endWork(_ number: UInt64) {
        work.end(number)
        checkIdle()
    }

    /// Succeeds once the store has answered everything that sessions asked of it up to now.
    func whenAnswered(work worked: EventLoopPromise<Void>, appends appended: EventLoopPromise<Void>) {
        work.whenOver(worked)
        appends.whenAnswered(appended)
    }

    private func spread(_ close: Close) -> Close {
        var close = close
        close.retryAfter = UInt64.random(in: 0...core.limits.drainSpread.wholeMilliseconds)
        return close
    }

    // MARK: Users

    /// Finds a session by who it is from now on. ``unregister(_:_:)`` comes before that changes.
    func register(_ host: SessionHost, _ identity: SessionIdentity) {
        users[UserKey(identity), default: []].append(host)
        tokens[TokenKey(identity), default: []].append(host)
    }

    func unregister(_ host: SessionHost, _ identity: SessionIdentity) {
        let (user, token) = (UserKey(identity), TokenKey(identity))
        users[user]?.removeAll { $0 === host }
        if users[user]?.isEmpty == true { users[user] = nil }
        tokens[token]?.removeAll { $0 === host }
        if tokens[token]?.isEmpty == true { tokens[token] = nil }
    }

    /// Tokens that sessions are found by, for tests.
    var tokenCount: Int { tokens.count }

    /// The user's sessions on this loop that were granted.
    func sessionInfo(of user: UserKey) -> [SessionInfo] { (users[user] ?? []).compactMap(\.info) }

    /// A session of the tenant is granted: it hears what is broadcast.
    func enter(_ host: SessionHost, tenant: TenantID) { tenants[tenant, default: [:]][ObjectIdentifier(host)] = host }

    func leave(_ host: SessionHost, tenant: TenantID) {
        tenants[tenant]?[ObjectIdentifier(host)] = nil
        if tenants[tenant]?.isEmpty == true { tenants[tenant] = nil }
    }

    /// The user's right to a room changed: all devices learn it, but the one that asked.
    func channelChanged(_ channel: SessionChannel, of user: UserKey, except asked: UInt64) {
        for host in users[user] ?? [] where host.id != asked { host.channelChanged(channel) }
        drainDirty()
    }

    /// The sessions that a revocation names.
    func sessions(of target: RevocationTarget) -> [SessionHost] {
        switch target {
        case .user(let user): users[user] ?? []
        case .device(let device): (users[device.userKey] ?? []).filter { $0.identity?.device == device.device }
        case .token(let token, let tenant): tokens[TokenKey(token: token, tenant: tenant)] ?? []
        }
    }

    // MARK: Wakes

    func subscribe(_ host: SessionHost, to channel: ChannelKey) {
        let before = subscriptions.count
        subscriptions.insert(host, for: channel)
        if subscriptions.count > before, host.isInAudience { core.audiences.add(1, to: channel) }
    }

    func unsubscribe(_ host: SessionHost, from channel: ChannelKey) {
        let before = subscriptions.count
        subscriptions.remove(host, for: channel)
        if subscriptions.count < before, host.isInAudience { core.audiences.add(-1, to: channel) }
    }

    /// Calls for each session of this loop that listens to a channel.
    func forEachSubscriber(of channel: ChannelKey, _ body: (SessionHost) -> Void) {
        subscriptions.forEach(of: channel, body)
    }

    var subscriptionCount: Int { subscriptions.count }

    /// Logs grew: wakes who listens, on every loop.
    func publishWakes(_ heads: [ChannelKey: Position]) {
        guard !heads.isEmpty else { return }
        for sibling in siblings { sibling.execute { $0.wake(heads) } }
        wake(heads)
    }

    /// A room was deleted: every session in it learns where its stay ended, on every loop.
    func publishDeletion(of room: ChannelKey, at end: Position) {
        for sibling in siblings { sibling.execute { $0.roomDeleted(room, at: end) } }
        roomDeleted(room, at: end)
    }

    func roomDeleted(_ room: ChannelKey, at end: Position) {
        guard case .room(let name) = room.channel else { return }
        history.recordDeletion(room, end: end)
        var hosts: [SessionHost] = []
        subscriptions.forEach(of: room) { hosts.append($0) }
        for host in hosts { host.roomDeleted(name, at: end) }
        drainDirty()
    }

    /// Wakes this loop's subscribers. They read the log; no payload comes this way.
    func wake(_ heads: [ChannelKey: Position]) {
        for (channel, head) in heads {
            history.record(channel, head: head)
            wakeListeners(of: channel, head: head)
        }
        drainDirty()
    }

    func listenerCount(of channel: ChannelKey) -> Int {
        if case .all = channel.channel { tenants[channel.tenant]?.count ?? 0 } else { subscriptions.count(of: channel) }
    }

    /// Calls for each session that listens to a channel. Nobody may begin or end to meanwhile.
    func forEachListener(of channel: ChannelKey, _ body: (SessionHost) -> Void) {
        if case .all = channel.channel {
            tenants[channel.tenant]?.values.forEach(body)
        } else {
            subscriptions.forEach(of: channel, body)
        }
    }

    /// A session has something to do; ``drainDirty()`` comes before the tick ends, or the session is drained by itself.
    func markDirty(_ host: SessionHost) { dirty.append(host) }

    /// Works off sessions that were woken, a bounded number before the loop's sockets get their turn again.
    func drainDirty() {
        var left = Self.drainsPerTick
        // Any link of the loop's will do to look at its sockets.
        var poller: (any Link)?
        while let host = dirty.popFirst() {
            // Not one that was drained since, as its link's batch ended.
            guard host.isDirty else { continue }
            poller = host.link ?? poller
            host.drain()
            left -= 1
            if left == 0 {
                if !dirty.isEmpty {
                    (poller ?? dirty.lazy.compactMap { $0.link }.first)?.pollSockets()
                    reference.execute { $0.drainDirty() }
                }
                return
            }
        }
    }

    // MARK: Deadlines

    func setTimer(_ host: UInt64, deadline: NIODeadline?) {
        timers.set(host, deadline: deadline)
        scheduleTimer()
    }

    private func scheduleTimer() {
        guard let next = timers.next else { return }
        if let timerDeadline, timerDeadline <= next { return }
        timer?.cancel()
        timerDeadline = next
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: next) { [self] in timerFired() }
    }

    private func timerFired() {
        timerDeadline = nil
        timer = nil
        let now = eventLoop.now
        while let id = timers.due(now: now) {
            guard let host = hosts[id] else { continue }
            host.deadlineReached(now: now)
        }
        scheduleTimer()
        drainDirty()
    }

    // MARK: Statistics

    /// What this loop counted and holds.
    func snapshot() -> ServerStatistics {
        var snapshot = statistics
        // Not those that only wait for their last bytes to arrive.
        for host in hosts.values where host.phase != .ended {
            snapshot.connections += 1
            host.link.map { snapshot.connectionsByTransport[$0.kind, default: 0] += 1 }
        }
        snapshot.unauthenticated = hosts.values.count { $0.isUnauthenticated }
        snapshot.subscriptions = subscriptions.count
        snapshot.presenceWatches = presence.watchers.count
        snapshot.presentUsers = presence.home.count
        return snapshot
    }
}

/// A token's ID within a tenant.
private struct TokenKey: Hashable {
    let token: String
    let tenant: TenantID

    init(token: String, tenant: TenantID) {
        self.token = token
        self.tenant = tenant
    }

    init(_ identity: SessionIdentity) { self.init(token: identity.tokenID, tenant: identity.tenant) }
}

/// Reaches a ``ServerLoop`` from any thread.
struct LoopReference: Sendable {
    let eventLoop: any EventLoop
    let loop: NIOLoopBound<ServerLoop>

    /// Runs on the loop, later.
    func execute(_ body: @escaping @Sendable (ServerLoop) -> Void) {
        eventLoop.execute { body(loop.value) }
    }

    /// Runs now when this is the loop's thread, else on the loop, later.
    func run(_ body: @escaping @Sendable (ServerLoop) -> Void) {
        if eventLoop.inEventLoop { body(loop.value) } else { execute(body) }
    }

    /// Runs on the loop and answers.
    func submit<Value: Sendable>(_ body: @escaping @Sendable (ServerLoop) -> Value) async throws -> Value {
        try await eventLoop.submit { body(loop.value) }.get()
    }
}
