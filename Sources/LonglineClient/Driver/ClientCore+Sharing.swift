import LonglineWire
import NIOCore
import Synchronization

extension ClientError {
    /// Whether the outbox belongs to another process, which will take over what is put in.
    var isOfAnotherOwner: Bool { code == .storageInUse || code == .ownershipLost }
}

/// What a client of a shared outbox keeps beside its driver, which exists only while its process owns the outbox.
final class SharingState: Sendable {
    private struct State {
        var wantsConnection = false
        /// How often the app said so.
        var wishes: UInt64 = 0
        /// Contends for ownership.
        var contender: Task<Void, Never>?
        /// A driver ended while it ran: perhaps the one that it told to connect.
        var contendsAgain = false
        /// Looks for what other processes do.
        var watch: Task<Void, Never>?
        /// Messages of this process that another one publishes.
        var followed: [SendID: SendTracker] = [:]
        /// Whether some of them were never read about.
        var hasUnread = false
        var follower: Task<Void, Never>?
        /// Messages that this process put in for an owner, so far.
        var submitted: UInt64 = 0
        /// So many of them are in the outbox of the owner that this process is; nil: it has not looked.
        var takenIn: UInt64?
        /// Takes in what was put in.
        var taking: Task<Bool, any Error>?
        /// The client has ended for good.
        var end: ClientError?
        /// This client's last turn as the owner.
        var turn: Int64?
    }

    let storage: SharedClientStorage
    /// How the owner waits between its looks.
    let looks = OwnerLooks()
    private let sends: Broadcast<SendStatus>
    private let state = Mutex(State())

    init(storage: SharedClientStorage, sends: Broadcast<SendStatus>) {
        self.storage = storage
        self.sends = sends
    }

    var wantsConnection: Bool { state.withLock { $0.wantsConnection } }

    /// The number of the app's last wish to be connected.
    var wish: UInt64 { state.withLock { $0.wishes } }

    func wantsConnection(_ wants: Bool) {
        let contender = state.withLock { state in
            state.wantsConnection = wants && state.end == nil
            if wants { state.wishes += 1 }
            guard !wants else { return Task<Void, Never>?.none }
            defer { state.contender = nil }
            return state.contender
        }
        contender?.cancel()
    }

    /// Runs one contender at a time.
    /// - Parameters:
    ///   - goesOn: whether a driver has just ended; then one that runs already runs once more.
    ///   - body: is told whether it goes on with what the app asked for before.
    func contend(goesOn: Bool, _ body: @escaping @Sendable (_ goesOn: Bool) async -> Void) {
        state.withLock { state in
            guard state.wantsConnection else { return }
            guard state.contender == nil else {
                if goesOn { state.contendsAgain = true }
                return
            }
            state.contendsAgain = false
            state.contender = Task { [weak self] in
                await body(goesOn)
                while self?.contendsAgain() == true { await body(true) }
            }
        }
    }

    private func contendsAgain() -> Bool {
        state.withLock { state in
            // One that was cancelled has been replaced already.
            guard !Task.isCancelled else { return false }
            defer { state.contendsAgain = false }
            if !state.contendsAgain { state.contender = nil }
            return state.contendsAgain
        }
    }

    /// The client is the owner now.
    func took(_ turn: Int64) { state.withLock { $0.turn = turn } }

    /// Gives up what this client took last. What another one of the process took since is not its own.
    func giveUp() async {
        guard let turn = state.withLock({ $0.turn }), storage.generation == turn else { return }
        try? await storage.release(turn)
    }

    func watch(_ body: @escaping @Sendable () async -> Void) {
        let old = state.withLock { state in
            defer { if state.end == nil { state.watch = Task { await body() } } }
            return state.watch
        }
        old?.cancel()
    }

    /// Runs one after the other: who claims finds nothing that another one is about to take in.
    func takeIn(_ body: @escaping @Sendable () async throws -> Bool) async throws -> Bool {
        let turn = state.withLock { state in
            let before = state.taking
            let turn = Task {
                _ = await before?.result
                return try await body()
            }
            state.taking = turn
            return turn
        }
        return try await turn.value
    }

    /// The client has ended for good; who follows a message that it does not own is told so.
    func stop(_ error: ClientError) {
        let (tasks, trackers) = state.withLock { state in
            state.wantsConnection = false
            state.end = state.end ?? error
            defer {
                (state.contender, state.watch, state.follower) = (nil, nil, nil)
                state.followed = [:]
            }
            return ([state.contender, state.watch, state.follower], state.followed)
        }
        for task in tasks { task?.cancel() }
        for tracker in trackers.values { tracker.end(error) }
    }

    // MARK: Messages that another process publishes

    func submit(_ submission: Submission, limits: OutboxLimits) async throws -> SendReceipt {
        try Outbox.check(submission.payload.readableBytes, limit: submission.kind.maximumPayload)
        let status = try await storage.submit(submission, limits: limits)
        state.withLock { $0.submitted += 1 }
        sends.send(status.withoutPayload)
        let tracker = SendTracker()
        tracker.change(to: status.state)
        if !status.state.isFinal { follow([submission.send: tracker]) }
        return SendReceipt(send: submission.send, channel: status.channel, tracker: tracker)
    }

    /// What this process put in so far; whatever is claimed after this was read holds all of it.
    var submitted: UInt64 { state.withLock { $0.submitted } }

    /// Whether everything that this process put in is in the outbox: only then may its next message go there directly, or it
    /// would come before them.
    var hasTakenInAll: Bool { state.withLock { $0.takenIn == $0.submitted } }

    func tookIn(_ submitted: UInt64) { state.withLock { $0.takenIn = max($0.takenIn ?? 0, submitted) } }

    /// Nothing is known any more: another owner came between, or what was taken in could not be written.
    func takeInAgain() { state.withLock { $0.takenIn = nil } }

    func receipt(for send: SendID) async throws -> SendReceipt? {
        guard let status = try await storage.statuses(of: [send]).first else { return nil }
        if let known = state.withLock({ $0.followed[send] }) {
            return SendReceipt(send: send, channel: status.channel, tracker: known)
        }
        let tracker = SendTracker(status.state.isFinal ? .queued : status.state)
        if status.state.isFinal { tracker.change(to: status.state) } else { follow([send: tracker]) }
        return SendReceipt(send: send, channel: status.channel, tracker: tracker)
    }

    /// A message is in the outbox of this very process now: its driver tells its states.
    func handOver(_ send: SendID) -> SendTracker? { state.withLock { $0.followed.removeValue(forKey: send) } }

    /// The messages that are followed from outside of their outbox.
    var followed: [SendID] { state.withLock { Array($0.followed.keys) } }

    /// Reads the states of messages until each is finished.
    func follow(_ trackers: [SendID: SendTracker]) {
        guard !trackers.isEmpty else { return }
        let end = state.withLock { state -> ClientError? in
            if let end = state.end { return end }
            state.followed.merge(trackers) { known, new in
                known.tell(new)
                return known
            }
            state.hasUnread = true
            guard state.follower == nil else { return nil }
            state.follower = Task { [weak self] in await self?.readStates() }
            return nil
        }
        if let end { for tracker in trackers.values { tracker.end(end) } }
    }

    private func readStates() async {
        var version: Int?
        var pause = LookInterval(storage.pollInterval)
        while !Task.isCancelled {
            var isNews = false
            let (names, hasUnread) = state.withLock { state -> ([SendID], Bool) in
                if state.followed.isEmpty { state.follower = nil }
                defer { state.hasUnread = false }
                return (Array(state.followed.keys), state.hasUnread)
            }
            guard !names.isEmpty else { return }
            // What can't be read now is read at the next turn.
            if let now = try? await storage.version(), now != version || hasUnread {
                version = nil
                isNews = true
                if let statuses = try? await storage.statuses(of: names) {
                    version = now
                    note(statuses, of: names)
                }
            } else if hasUnread {
                version = nil
            }
            try? await Task.sleep(for: pause.next(isNews: isNews))
        }
    }

    private func note(_ statuses: [SendStatus], of names: [SendID]) {
        let known = Dictionary(statuses.map { ($0.send, $0) }) { first, _ in first }
        for name in names {
            guard let tracker = state.withLock({ $0.followed[name] }) else { continue }
            if let status = known[name] {
                if status.state != tracker.state { sends.send(status.withoutPayload) }
                tracker.change(to: status.state)
                guard status.state.isFinal else { continue }
            } else {
                tracker.end(
                    ClientError(
                        .outcomeUnknown, message: "the outbox does not remember the message any more",
                        advice: "ask sooner; a thousand outcomes are kept"))
            }
            state.withLock { $0.followed[name] = nil }
        }
    }
}

/// Who owns a shared outbox.
extension ClientCore {
    /// - Returns: which turn of this process it is; nil for an outbox of this client's own.
    /// - Throws: ``ClientError/Code/storageInUse`` while another process has it.
    func takeOwnership() async throws -> Int64? {
        guard let sharing else { return nil }
        guard try await sharing.storage.contend() else { throw Self.isOwnedByAnother }
        guard let ownership = sharing.storage.generation else { throw ConnectionDriver.retired }
        sharing.took(ownership)
        return ownership
    }

    /// Gives up what an opening took of which nothing came, where the client has ended meanwhile: nobody else would.
    func giveUpOwnership() async {
        guard let sharing, let closed else { return }
        // A logout needs it until all is wiped. It gives it up by itself, and the opening may have taken it once more behind that.
        if closed.code == .loggedOut { try? await wipe() }
        await sharing.giveUp()
    }

    static var isOwnedByAnother: ClientError {
        ClientError(
            .storageInUse, message: "another process of the app owns the outbox",
            advice: "messages that are sent here are taken over by it; connect() waits for it to end")
    }

    /// The driver, once this process owns the outbox.
    /// - Parameter disconnections: as for ``handle(since:)``.
    func ownedHandle(since disconnections: UInt64? = nil) async throws -> DriverHandle {
        guard let sharing else { return try await handleUnlessCancelled(since: disconnections) }
        while true {
            do { return try await handleUnlessCancelled(since: disconnections) } catch let error as ClientError
                where error.isOfAnotherOwner
            {
                // With the lock of the turns: a disconnection that is later tells its own state.
                try turns.withLock { _ in
                    guard sharing.wantsConnection else {
                        throw ClientError(.disconnected, message: "the client was disconnected")
                    }
                    if case .standby = outlets.states.latest { return }
                    outlets.states.send(.standby)
                }
                try await Task.sleep(for: sharing.storage.pollInterval)
            }
        }
    }

    /// Connects as soon as this process owns the outbox, for as long as the app wants it.
    /// - Parameter goesOn: whether a driver has just ended, and the next one does what it did.
    func keepContending(goesOn: Bool = false) {
        guard let sharing else { return }
        let interval = sharing.storage.pollInterval
        sharing.contend(goesOn: goesOn) { [weak self] goesOn in
            var pause = LookInterval(interval)
            var isTold = false
            while !Task.isCancelled {
                do {
                    guard let self else { return }
                    return try await ownedHandle().run { driver in
                        // The app may have disconnected meanwhile, and a service that said "stop" waits for the app.
                        guard let (asked, wish) = self.wishToConnect() else { return }
                        if goesOn, case .stopped = driver.phase { return }
                        _ = driver.connect(after: asked, wish: wish, nil)
                    }
                } catch {
                    // The client has ended, or neither the file can be read now nor what the app keeps itself.
                    guard !Task.isCancelled, self?.closed == nil else { return }
                    if !isTold {
                        isTold = true
                        let told = ClientError(.storage, message: "what the app keeps can't be read", cause: error)
                        self?.outlets.notices.send(.storageFailed(error as? ClientError ?? told))
                    }
                    try? await Task.sleep(for: pause.next(isNews: false))
                }
            }
        }
    }

    /// How many disconnections there were before the app's wish to be connected, and its number; nil: it has none.
    private func wishToConnect() -> (disconnections: UInt64, number: UInt64)? {
        turns.withLock { turns -> (disconnections: UInt64, number: UInt64)? in
            guard let sharing, sharing.wantsConnection else { return nil }
            return (turns.disconnections, sharing.wish)
        }
    }

    /// Takes messages that were put in for the owner into its outbox, as far as there is room.
    /// - Returns: whether nothing of what this process had put in before waits any more.
    func takeIn(on handle: DriverHandle) async throws -> Bool {
        guard let sharing else { return true }
        return try await sharing.takeIn { try await Self.takeIn(sharing, on: handle) }
    }

    private static func takeIn(_ sharing: SharingState, on handle: DriverHandle) async throws -> Bool {
        while true {
            let submitted = sharing.submitted
            let claim = try await sharing.storage.claim()
            let outcome = await withCheckedContinuation { continuation in
                handle.run { $0.adopt(claim.submissions) { continuation.resume(returning: $0) } }
            }
            guard outcome else { return false }
            // What follows them shows once they are out of the way.
            if claim.isAll {
                sharing.tookIn(submitted)
                return true
            }
        }
    }

    /// Looks for what other processes put in, and whether one of them wants to be the owner.
    func watchOwnership(of handle: DriverHandle) {
        guard let sharing, let ownership = handle.ownership else { return }
        sharing.takeInAgain()
        handle.run { driver in
            driver.onOwnershipLost = { [weak self] in Task { await self?.loseOwnership(ownership) } }
            driver.onReplaced = { [weak self] goOn in
                Task {
                    // Another process of the app may have taken over while this one slept.
                    if case .lost = try? await sharing.storage.news() { await self?.loseOwnership(ownership) }
                    goOn()
                }
            }
            driver.drainConfirmations()
        }
        let storage = sharing.storage
        sharing.watch { [weak self] in
            var version: Int?
            var isWaiting = false
            var pause = LookInterval(storage.pollInterval)
            while !Task.isCancelled {
                // Without a connection, or a user, nobody waits for what it finds, but an owner has to answer in time.
                let longest = sharing.wantsConnection ? sharing.looks.mode.longestLook : LookInterval.longest
                var isNews = false
                if let now = try? await storage.version(), now != version || isWaiting,
                    let news = try? await storage.news()
                {
                    version = now
                    isWaiting = false
                    isNews = true
                    switch news {
                    case .nothing: break
                    case .lost:
                        await self?.loseOwnership(ownership)
                        return
                    case .challenged:
                        guard let self, self.sharing?.wantsConnection == true else {
                            // Who wants to connect goes first.
                            await self?.yieldOwnership(.disconnected)
                            return
                        }
                        isWaiting = true
                        try? await storage.answerChallenge()
                    case .submissions:
                        // Looked at again until all are in: the outbox may be full now.
                        isWaiting = true
                        _ = try? await self?.takeIn(on: handle)
                    }
                }
                let wait = pause.next(isNews: isNews, longest: longest)
                await sharing.looks.wait(for: min(wait, storage.takeOverAfter / 2))
            }
        }
    }

    /// Another process took over: it goes on with what is durable, and this one waits for its turn. Returns when the driver of that
    /// turn is retired, whoever did it.
    private func loseOwnership(_ ownership: Int64) async {
        guard let sharing else { return }
        let task = turns.withLock { $0.task }
        if let task, let handle = try? await task.value, handle.ownership == ownership {
            let isEnded = turns.withLock { turns in
                guard turns.task == task else { return false }
                _ = turns.end { driver in
                    await self.retire(driver, sharing.wantsConnection ? .standby : .disconnected)
                    sharing.storage.forgetOwnership(ownership)
                }
                return true
            }
            if isEnded { keepContending(goesOn: true) }
        }
        await turns.withLock { $0.ending }?.value
    }

    /// Gives the outbox to whoever wants it.
    /// - Parameter unlessWanted: keeps it where the app wants to be connected, as it asked again meanwhile.
    func yieldOwnership(_ state: ConnectionState, unlessWanted: Bool = false) async {
        guard let sharing else { return }
        let ending = turns.withLock { turns -> Task<Void, Never>? in
            if unlessWanted, sharing.wantsConnection { return nil }
            // A logout gives it up by itself, and by now it may be the next login's.
            if turns.closed?.code == .loggedOut { return nil }
            return turns.end { driver in
                await self.retire(driver, state)
                try? await sharing.storage.release()
            }
        }
        guard let ending else { return }
        keepContending(goesOn: true)
        await ending.value
    }

    private func retire(_ task: Task<DriverHandle, any Error>?, _ state: ConnectionState) async {
        guard let handle = try? await task?.value else { return }
        let trackers = await withCheckedContinuation { continuation in
            handle.run { driver in driver.retire(state) { continuation.resume(returning: $0) } }
        }
        sharing?.follow(trackers)
    }

    // MARK: What the app asks

    func waiting() async throws -> [SendStatus] {
        if let sharing { return try await sharing.storage.waiting() }
        return try await ask { $0.statuses }
    }

    func status(of send: SendID) async throws -> SendStatus? {
        guard let sharing else { return try await ask { $0.status(of: send) } }
        if let known = try? await ask({ $0.status(of: send) }) { return known }
        return try await sharing.storage.statuses(of: [send]).first
    }

    func receipt(for send: SendID) async throws -> SendReceipt? {
        guard let sharing else { return try await ask { $0.receipt(for: send) } }
        if let known = try? await ask({ $0.receipt(for: send) }) { return known }
        return try await sharing.receipt(for: send)
    }

    /// Waits until the outbox has room, or for a moment where another process's messages may fill it: nobody tells of those.
    func someRoom(_ room: AsyncStream<Void>) async {
        if let sharing {
            try? await Task.sleep(for: sharing.storage.pollInterval)
        } else {
            for await _ in room { return }
        }
    }

    func cancel(_ send: SendID) async throws -> CancelResult {
        do {
            let handle = try await handle()
            let result = try await withCheckedThrowingContinuation { continuation in
                handle.run { driver in driver.cancelSend(send) { continuation.resume(with: $0) } }
            }
            guard let sharing, result == .unknown else { return result }
            return try await sharing.storage.cancel(send)
        } catch let error as ClientError where error.isOfAnotherOwner {
            guard let sharing else { throw error }
            return try await sharing.storage.cancel(send)
        }
    }

    /// Asks the driver; one that another process's turn ended meanwhile neither knows nor keeps anything any more.
    func ask<Value: Sendable>(_ question: @escaping @Sendable (ConnectionDriver) -> Value) async throws -> Value {
        while true {
            let handle = try await handle()
            let answer: Value? = await withCheckedContinuation { continuation in
                handle.run { driver in
                    continuation.resume(returning: driver.isRetired ? nil : .some(question(driver)))
                }
            }
            if let answer { return answer }
        }
    }
}
