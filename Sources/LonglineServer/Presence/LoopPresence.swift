import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Presence on one event loop: the users whose home it is, and whom its sessions watch.
///
/// A user's home is one of the loops, by the hash of the name. Sessions report to it, and it tells the loops that have
/// watchers, one hop for all news of a turn: a change costs what its connected watchers cost, and nobody waits.
/// ```
///   session --report--> home: PresenceHome --news--> loops with watchers: PresenceWatchers --> sessions
///   session --watch--> PresenceWatchers --record from the store--> home
/// ```
struct LoopPresence {
    var home: PresenceHome
    var watchers = PresenceWatchers<SessionHost>()
    /// News of this turn, by the loop they are for.
    fileprivate var outgoing: [Int: [UserKey: PresenceUpdate]] = [:]
    fileprivate var isFlushScheduled = false
    fileprivate var timer: (at: NIODeadline, task: Scheduled<Void>)?
    /// Reads of records under way.
    fileprivate var reads = 0
    fileprivate var isRetryScheduled = false

    /// Reads of records at one time; the rest waits, and is read together.
    fileprivate static let maximumReads = 4
    fileprivate static let usersPerRead = 200

    init(limits: ServerLimits) {
        home = PresenceHome(timing: PresenceTiming(grace: limits.presenceGrace, interval: limits.presenceInterval))
    }
}

extension ServerLoop {
    // MARK: Reports

    /// A session of a user is up or changed its mode (a state), or is gone (nil).
    func report(_ user: UserKey, link: UInt64, state: PresenceState?) {
        let time = core.time()
        atHome(of: user) { $0.presence.home.report(user, link: link, state: state, time: time, now: $0.eventLoop.now) }
    }

    /// A user decides what others see. It is written down soon.
    func set(_ visibility: PresenceVisibility, of user: UserKey) {
        core.presence.put(PresenceNote(tenant: user.tenant, user: user.user, visibility: visibility))
        atHome(of: user) { $0.presence.home.set(visibility, of: user, now: $0.eventLoop.now) }
    }

    /// A user's account is erased, and has no session any more.
    func forgetPresence(of user: UserKey) {
        atHome(of: user) { $0.presence.home.forget(user, now: $0.eventLoop.now) }
    }

    // MARK: Watchers

    /// Tells a session of users from now on, `new` of which it was not told of.
    /// - Returns: whether there was room.
    func watch(_ users: [UserKey], new: Int, for host: SessionHost) -> Bool {
        guard presence.watchers.count + new <= core.limits.presenceWatchesPerLoop else { return false }
        for user in users { presence.watchers.add(host, to: user) }
        readRecords()
        return true
    }

    /// Tells a session of users no more.
    func unwatch(_ users: some Sequence<UserKey>, for host: SessionHost) {
        let index = self.index
        for user in users where presence.watchers.remove(host, from: user) {
            atHome(of: user) { $0.presence.home.unwatch(user, loop: index, now: $0.eventLoop.now) }
        }
    }

    /// Reads what is kept of users that nobody on this loop watched before, some at a time.
    private func readRecords() {
        while presence.reads < LoopPresence.maximumReads, !presence.isRetryScheduled {
            let users = presence.watchers.takeUnread(limit: LoopPresence.usersPerRead)
            guard let tenant = users.first?.tenant else { return }
            presence.reads += 1
            let number = beginWork()
            let (core, reference) = (self.core, self.reference)
            Task {
                let result = await Result { () async throws(StoreError) in
                    try await core.store.presence(of: users.map(\.user), in: tenant)
                }
                reference.execute { loop in
                    loop.recordsRead(users, result)
                    loop.endWork(number)
                }
            }
        }
    }

    private func recordsRead(_ users: [UserKey], _ result: Result<[UserID: PresenceRecord], StoreError>) {
        presence.reads -= 1
        switch result {
        case .success(let records):
            let index = self.index
            for user in users where presence.watchers.ask(user) {
                // What waits to be written is newer than what was read.
                let record = core.presence.newest(records[user.user] ?? PresenceRecord(), of: user)
                atHome(of: user) { loop in
                    // So is what came on the way: a home that held nothing of the user did not keep it.
                    let newest = loop.core.presence.newest(record, of: user)
                    loop.presence.home.watch(user, loop: index, record: newest, now: loop.eventLoop.now)
                }
            }
        case .failure(let error):
            core.note(error, in: "presence")
            presence.watchers.putBack(users)
            guard !presence.isRetryScheduled else { return }
            presence.isRetryScheduled = true
            eventLoop.assumeIsolated().scheduleTask(in: core.limits.retryAfter) { [self] in
                presence.isRetryScheduled = false
                readRecords()
            }
        }
        readRecords()
    }

    // MARK: Home

    /// Runs on the loop that is a user's home, now or later.
    private func atHome(of user: UserKey, _ body: @escaping @Sendable (ServerLoop) -> Void) {
        let home = Int(UInt(bitPattern: user.hashValue) % UInt(max(1, loops.count)))
        guard home != index else {
            body(self)
            return settleHome()
        }
        loops[home].execute { loop in
            body(loop)
            loop.settleHome()
        }
    }

    /// Does what came of an input of the home.
    private func settleHome() {
        for (user, time) in presence.home.takeSeen() {
            core.presence.put(PresenceNote(tenant: user.tenant, user: user.user, lastSeen: time))
        }
        for news in presence.home.takeNews() {
            statistics.presenceChanges += 1
            for loop in news.loops { presence.outgoing[loop, default: [:]][news.user] = news.update }
        }
        if !presence.outgoing.isEmpty, !presence.isFlushScheduled {
            presence.isFlushScheduled = true
            reference.execute { $0.flushPresence() }
        }
        guard let next = presence.home.nextDeadline else { return }
        if let timer = presence.timer, timer.at <= next { return }
        presence.timer?.task.cancel()
        let task = eventLoop.assumeIsolated().scheduleTask(deadline: next) { [self] in
            presence.timer = nil
            presence.home.deadlineReached(now: eventLoop.now)
            settleHome()
        }
        presence.timer = (next, task)
    }

    private func flushPresence() {
        presence.isFlushScheduled = false
        let outgoing = presence.outgoing
        presence.outgoing = [:]
        for (loop, updates) in outgoing {
            if loop == index { learn(updates) } else { loops[loop].execute { $0.learn(updates) } }
        }
    }

    /// Tells this loop's watchers.
    private func learn(_ updates: [UserKey: PresenceUpdate]) {
        for (user, update) in updates {
            for host in presence.watchers.learn(update, of: user) { host.presenceChanged(update) }
        }
        drainDirty()
    }
}
