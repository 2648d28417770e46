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
    /// As the app names them; nil: it doesn't.
    private let user: UserID?
    private let device: DeviceID?
    private let state = Mutex(State())

    init(
        storage: SharedClientStorage, sends: Broadcast<SendStatus>, user: UserID? = nil, device: DeviceID? = nil
    ) {
        self.storage = storage
        self.sends = sends
        self.user = user
        self.device = device
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
        let submitter = Submitter(user: user, device: device, end: { [self] in loggedOut })
        let status = try await storage.submit(submission, limits: limits, by: submitter)
        state.withLock { $0.submitted += 1 }
        sends.send(status.withoutPayload)
        let tracker = SendTracker()
        tracker.change(to: status.state)
        if !status.state.isFinal { follow([submission.send: tracker]) }
        return SendReceipt(send: submission.send, channel: status.channel, tracker: tracker)
    }

    /// The client's end, where that wipes the file: it is set before the wipe is asked for. Another end leaves the outbox as it is.
    private var loggedOut: ClientError? {
        state.withLock { state -> ClientError? in
            guard let end = state.end, end.code == .loggedOut else { return nil }
            return end
        }
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
        guard let status = try await storage.statuses(of: [send], payload: false).first else { return nil }
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
                if let statuses = try? await storage.statuses(of: names, payload: false) {
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
