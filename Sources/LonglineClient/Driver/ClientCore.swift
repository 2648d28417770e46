import Logging
import LonglineWire
import NIOCore
import QUICTransport
import Synchronization

/// A driver as other threads see it.
struct DriverHandle: Sendable {
    let loop: any EventLoop
    let driver: NIOLoopBound<ConnectionDriver>
    /// Which of its process's turns as the owner of a shared outbox it belongs to; nil for an outbox of its own.
    let ownership: Int64?

    /// Runs `body` on the driver's loop.
    func run(_ body: @escaping @Sendable (ConnectionDriver) -> Void) {
        let driver = driver
        loop.execute {
            driver.value.noticeTime()
            body(driver.value)
        }
    }

    /// Starts something on the loop and waits for its end.
    ///
    /// - Parameters:
    ///   - start: returns the number by which `cancel` knows the wait.
    ///   - cancel: ends the wait when the task is cancelled.
    /// - Throws: also ``ClientError/Code/ownershipLost`` where another process took over before it could start.
    func call<Value: Sendable>(
        ignoring: Value,
        _ start: @escaping @Sendable (ConnectionDriver, @escaping (Result<Value, ClientError>) -> Void) -> UInt64,
        cancel: (@Sendable (ConnectionDriver, UInt64) -> Void)? = nil
    ) async throws -> Value {
        let outcome = Outcome<Value>()
        let wait = Mutex((number: UInt64?.none, isCancelled: false))
        return try await withTaskCancellationHandler {
            run { driver in
                // A task that was cancelled before waits for nothing.
                guard !wait.withLock({ $0.isCancelled }) else { return }
                // Another process took over on the way here: "not connected", with the advice to connect, would be wrong.
                guard !driver.isRetired else { return outcome.resolve(.failure(ConnectionDriver.retired)) }
                let id = start(driver) { result in
                    outcome.resolve(result.mapError { $0 as any Error })
                }
                wait.withLock { $0.number = id }
            }
            return try await outcome.value()
        } onCancel: {
            guard let cancel else { return }
            wait.withLock { $0.isCancelled = true }
            run { driver in
                if let id = wait.withLock({ $0.number }) { cancel(driver, id) }
            }
        }
    }
}

/// Knows a driver, and doesn't keep it.
private struct KnownDriver {
    weak var driver: ConnectionDriver?
}

/// Makes the driver once its durable state is read, at the first use.
final class ClientCore: Sendable {
    let configuration: LonglineClient.Configuration
    let outlets = ClientOutlets()
    let loop: any EventLoop
    let clock: DriverClock
    private let connector: any LinkConnector
    private let fetcher: AccessFetcher?
    /// Shared by the drivers of a shared outbox, as a call may outlast the one that began it.
    let tokens: TokenCalls
    private let random: @Sendable () -> any RandomNumberGenerator
    /// What messages are named by.
    private let names = Mutex(SystemRandomPool())
    let turns = Mutex(DriverTurns())
    /// What the last driver left to the next one.
    private let memory = Mutex<DriverMemory?>(nil)
    /// The storage's end, once it is asked for.
    private let wiping = Mutex<Task<Void, any Error>?>(nil)
    /// What a shared outbox needs beside; nil for one of this client's own.
    let sharing: SharingState?

    init(
        configuration: LonglineClient.Configuration, loop: any EventLoop, clock: DriverClock,
        connector: any LinkConnector, fetcher: AccessFetcher?,
        random: @escaping @Sendable () -> any RandomNumberGenerator
    ) {
        let shared = (configuration.storage as? SharedClientStorage)?.seat()
        var configuration = configuration
        if let shared { configuration.storage = shared }
        self.configuration = configuration
        self.loop = loop
        self.clock = clock
        self.connector = connector
        self.fetcher = fetcher
        tokens = TokenCalls(configuration.tokenProvider)
        self.random = random
        let sends = outlets.sends
        let (user, device) = (configuration.user, configuration.device)
        sharing = shared.map { SharingState(storage: $0, sends: sends, user: user, device: device) }
    }

    /// The driver; opens the storage when nobody did.
    /// - Parameter disconnections: for who wants to connect, how many there were before; after another one it opens nothing.
    func handle(since disconnections: UInt64? = nil) async throws -> DriverHandle {
        let task = try turns.withLock { turns in
            try turns.current(since: disconnections) { try await self.open(behind: $0) }
        }
        do {
            return try await task.value
        } catch {
            // A storage that could not be read may be readable next time.
            turns.withLock { $0.failed(task) }
            throw error
        }
    }

    /// As ``handle(since:)``, for who may stop to wait for what the storage and the app's cursor store still have to do. The opening goes on.
    func handleUnlessCancelled(since disconnections: UInt64? = nil) async throws -> DriverHandle {
        if turns.withLock({ $0.isOpen }) { return try await handle(since: disconnections) }
        let outcome = Outcome<DriverHandle>()
        Task {
            do { outcome.resolve(.success(try await handle(since: disconnections))) } catch {
                outcome.resolve(.failure(error))
            }
        }
        return try await outcome.value()
    }

    func driverEnded(_ memory: DriverMemory) { self.memory.withLock { $0 = memory } }

    /// The driver, if one was made.
    func existing() async throws -> DriverHandle? {
        guard let task = turns.withLock({ $0.task }) else { return nil }
        return try await task.value
    }

    /// What was done so far: by the driver, or by those before it.
    var statistics: ClientStatistics {
        get async {
            guard let handle = await opened() else { return memory.withLock { $0?.statistics } ?? ClientStatistics() }
            return await withCheckedContinuation { continuation in
                handle.run { continuation.resume(returning: $0.currentStatistics) }
            }
        }
    }

    /// The driver, if one is open: what holds up the opening of another holds up nobody.
    private func opened() async -> DriverHandle? {
        guard turns.withLock({ $0.isOpen }) else { return nil }
        return try? await existing()
    }

    /// - Parameter disconnections: how many there were before.
    private func open(behind disconnections: UInt64) async throws -> DriverHandle {
        // A logout gave the outbox up: what is taken now nobody would give up again.
        if let closed, closed.code == .loggedOut { throw closed }
        let ownership = try await takeOwnership()
        do { return try await open(behind: disconnections, as: ownership) } catch {
            await giveUpOwnership()
            throw error
        }
    }

    private func open(behind disconnections: UInt64, as ownership: Int64?) async throws -> DriverHandle {
        var state = try await configuration.storage.load()
        var handedOver: [ChannelID: Position] = [:]
        let own = state.cursors
        if let store = configuration.cursorStore {
            // The app knows nothing of requests: what was handed over of them stays the client's own record.
            handedOver = own.filter { if case .user = $0.key { true } else { false } }
            state.cursors = try await store.cursors().checkedCursors()
        }
        let record = state.cursors
        let memory = memory.withLock { $0 }
        if let memory {
            state.keepConfirmed(own, from: memory)
            state.goOn(from: memory)
        }
        let loop = loop
        let (loaded, handed) = (state, handedOver)
        let handle = try await loop.submit { [self] in
            let driver = ConnectionDriver(
                configuration: configuration, state: loaded, loop: loop, clock: clock, connector: connector,
                fetcher: fetcher, tokens: tokens, outlets: outlets, random: random())
            driver.core = self
            driver.handedOver = handed
            driver.disconnections = disconnections
            if let memory { driver.goOn(from: memory) }
            driver.ledger.began(with: record)
            // The driver holds its outlets, and they only know it.
            let known = NIOLoopBound(KnownDriver(driver: driver), eventLoop: loop)
            outlets.confirmations.onFirst { loop.execute { known.value.driver?.drainConfirmations() } }
            outlets.messages.onFall { loop.execute { known.value.driver?.appHasRead() } }
            return DriverHandle(loop: loop, driver: NIOLoopBound(driver, eventLoop: loop), ownership: ownership)
        }.get()
        // Before anybody connects by it.
        try turns.withLock { try $0.opened() }
        watchOwnership(of: handle)
        return handle
    }

    /// Tells the service, ends the driver, wipes the storage. Done again, it wipes again.
    func logOut() async throws -> LogoutResult {
        try await ownToWipe()
        close(ConnectionDriver.loggedOut)
        let result: LogoutResult
        if let handle = await opened() {
            result = await withCheckedContinuation { continuation in
                handle.run { $0.logOut { continuation.resume(returning: $0) } }
            }
        } else {
            outlets.states.send(.stopped(.loggedOut, reason: "logged out"))
            outlets.finish()
            result = .localOnly(
                ClientError(
                    .notConnected, message: "the service was not told: the client never connected",
                    advice: "have the backend revoke the device"))
        }
        try await wipe()
        return result
    }

    /// Owns a shared outbox, as only its owner may wipe it. Not by opening a driver: a store of the app's that gives no answer holds up no
    /// logout.
    private func ownToWipe() async throws {
        guard sharing != nil, closed == nil else { return }
        let (isOpen, ending) = turns.withLock { ($0.isOpen, $0.ending) }
        if isOpen { return }
        // The end of the driver before would give up what is taken now.
        if let ending { await wait(for: ending, atMost: TimeAmount(configuration.closeTimeout * 5 / 4)) }
        _ = try await takeOwnership()
    }

    /// The client has ended for good: nobody gets a driver any more.
    private func close(_ error: ClientError) {
        turns.withLock { $0.close(error) }
        sharing?.stop(error)
    }

    /// Why the client has ended for good; nil: it hasn't.
    var closed: ClientError? { turns.withLock { $0.closed } }

    /// Wipes the storage, also when the caller's task is cancelled meanwhile: a database would not even begin then. Once for all who
    /// ask: it may be another client's by the time of a second call.
    func wipe() async throws {
        let storage = configuration.storage
        let wipe = wiping.withLock { wiping in
            if let wiping { return wiping }
            let wipe = Task { try await storage.erase() }
            wiping = wipe
            return wipe
        }
        do { try await wipe.value } catch {
            wiping.withLock { $0 = nil }
            throw error
        }
    }

    /// Has the service erase the account; then ends the driver and wipes the storage.
    func eraseAccount(within patience: Duration) async throws {
        // One that is being opened has no connection yet.
        guard let handle = await opened() else {
            throw ClientError(
                .notConnected, message: "the client never connected", advice: "call connect() first")
        }
        let error: ClientError? = await withCheckedContinuation { continuation in
            handle.run { $0.eraseAccount(within: TimeAmount(patience)) { continuation.resume(returning: $0) } }
        }
        if let error { throw error }
        closeAfterErasure()
        try await wipe()
    }

    /// The account is erased, and nobody waits for that any more: the storage is wiped all the same.
    func accountWasErased() {
        closeAfterErasure()
        Task {
            do { try await wipe() } catch {
                configuration.logger.error(
                    "the account is erased, and the storage could not be wiped: log out to wipe it",
                    metadata: ["error": "\(error)"])
            }
        }
    }

    private func closeAfterErasure() {
        close(ConnectionDriver.loggedOut)
        // Somebody who connects may have reopened them before that.
        outlets.messages.finish()
        outlets.requests.finish()
    }

    /// The app let go of the client: its connection ends.
    func shutDown() {
        close(ConnectionDriver.shutDown)
        let (task, ending, isOpen) = turns.withLock { ($0.task, $0.ending, $0.isOpen) }
        // What holds up the opening keeps nobody waiting who reads.
        if !isOpen { outlets.finish() }
        // Another process of the app may connect at once.
        Task { [outlets, sharing] in
            guard let handle = try? await task?.value else {
                outlets.finish()
                // Nobody else goes on with the outbox before the driver that gives it up is done.
                await ending?.value
                await sharing?.giveUp()
                return
            }
            handle.run { driver in
                driver.disconnect {
                    driver.shutDown()
                    if let sharing { Task { await sharing.giveUp() } }
                }
            }
        }
    }

    // MARK: Sending

    func send(
        _ payload: ByteBuffer, _ kind: PublishKind, to destination: Destination, timeToLive: Duration? = nil
    ) async throws -> SendReceipt {
        try kind.checkRepresentable()
        // 0 means for ever on the wire, so the shortest life is a millisecond.
        let submission = Submission(
            send: names.withLock { SendID.random(using: &$0) }, destination: destination, kind: kind,
            timeToLive: timeToLive.map { UInt64(max(1, $0.milliseconds)) } ?? 0, queuedAt: clock.wall(),
            payload: payload, seen: clock.now())
        guard let sharing else { return try await send(submission, on: handle()) }
        do {
            let handle = try await handle()
            let isFirst = if sharing.hasTakenInAll { true } else { try await takeIn(on: handle) }
            guard isFirst else { return try await sharing.submit(submission, limits: configuration.outbox) }
            return try await send(submission, on: handle)
        } catch let error as ClientError where error.isOfAnotherOwner {
            return try await sharing.submit(submission, limits: configuration.outbox)
        }
    }

    private func send(_ submission: Submission, on handle: DriverHandle) async throws -> SendReceipt {
        let tracker = SendTracker()
        return try await withCheckedThrowingContinuation { continuation in
            handle.run { driver in
                driver.send(submission, tracker: tracker) { continuation.resume(with: $0) }
            }
        }
    }
}
