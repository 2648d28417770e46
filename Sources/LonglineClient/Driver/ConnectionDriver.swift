import Logging
import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// Keeps one device's session connected: owns the session, its outbox and the link of the moment.
///
/// Confined to its event loop. It turns three kinds of input (the app's calls, the link's events, timers) into session
/// inputs, then performs the session's actions (``pump()``). What has to survive the process goes through
/// ``flush()``, one transaction at a time.
///
/// ```
///          start            where, number, credential      accepted
///   idle --------> preparing ----------------> connecting ----------> connected
///    ^                 ^                           |                      |
///    | stop            |  time is over      ended  v               ended  v
///    '--- any      waiting <------------------- ReconnectPlan <-----------'
///                                                  | stop codes
///                                                  v
///                                               stopped
/// ```
final class ConnectionDriver {
    /// Where the driver stands.
    enum Phase {
        case idle
        case preparing
        case connecting
        case connected
        case waiting(DriverTimer)
        case stopped(CloseCode, String)
    }

    let configuration: LonglineClient.Configuration
    let loop: any EventLoop
    /// Runs the calls of the storage; nil: the tasks' threads do.
    let storageExecutor: LoopExecutor?
    let clock: DriverClock
    let connector: any LinkConnector
    /// Asks the control layer; nil: there is none.
    let fetcher: AccessFetcher?
    /// Calls the app's token provider.
    let tokens: TokenCalls
    let outlets: ClientOutlets
    var logger: Logger
    var random: any RandomNumberGenerator

    var phase = Phase.idle
    /// Counts attempts; what an earlier one still waits for is ignored.
    var generation: UInt64 = 0
    /// Attempts since the last session that was accepted, for the states that an app shows.
    var attempts = 0
    /// When the last one began.
    var attemptBeganAt = NIODeadline.uptimeNanoseconds(0)
    var plan: ReconnectPlan
    /// What the control layer said last.
    var access: AccessBook
    /// What an attempt asks before it opens a link, and waits for now: the control layer, or the app for a token.
    var question: Task<Void, Never>?
    /// The token that the control layer was asked with in this attempt.
    var attemptToken: String?
    /// The next attempt only brings the device back by another path, as those before it did not.
    var isReturn = false
    var session: ClientSession
    var current: DriverLink?
    /// Links that say farewell: their end is awaited by ``disconnect``.
    var closing: [ObjectIdentifier: DriverLink] = [:]
    /// All that wait.
    var timers: [ObjectIdentifier: WaitingTimer] = [:]
    /// ``timeSlept`` when the timers were set last.
    var sleepNoticed = TimeAmount.zero
    var sessionTimer: (deadline: NIODeadline, task: DriverTimer)?
    /// When the next attempt begins while the client waits for it, and what the service asked it to wait at least. Whether it is one of
    /// ``eager``.
    var nextAttempt: (at: NIODeadline, earliest: NIODeadline, isEager: Bool)?
    /// The user came while an attempt was under way: if nothing comes of it, or of those that follow it at once, another begins at once.
    var isAwaited = false
    /// How often that goes, and how often somebody who comes ends a wait.
    var eager = EagerAttempts()
    /// When back-off began anew last, in another network.
    var backOffRenewedAt: NIODeadline?
    /// By which addresses the last attempt went.
    var routes = Routes()
    /// The local address, with port 0, by which packets to `host:port` would leave now. Only tests have another.
    var lookUpRoute: (String) -> SocketAddress? = RouteProbe.localAddress(towards:)
    /// Looks at the routes behind a change of addresses.
    var routesTimer: DriverTimer?
    /// When the machine's addresses changed last.
    var addressesChangedAt = NIODeadline.uptimeNanoseconds(0)
    var attemptTimer: DriverTimer?
    var refreshTimer: DriverTimer?
    /// Asks the app for the fresh token.
    var refreshQuestion: Task<Void, Never>?
    var isPumping = false

    // What is durable, and what waits to become so.
    var outbox: Outbox
    var unwritten: Set<PublishID> = []
    /// Rows that wait until it is durable that they may leave.
    var unmarked: Set<PublishID> = []
    /// The attempt for which all rows were marked, and whose link takes new ones at once.
    var attemptedIn: UInt64?
    var sends: [PublishID: (receipt: SendReceipt, done: (Result<SendReceipt, ClientError>) -> Void)] = [:]
    /// Who follows a row.
    var trackers: [PublishID: SendTracker] = [:]
    /// Rows that were handed to a link, or may have been by an earlier process.
    var leftRows: Set<PublishID>
    var outcomes: OutcomeMemory
    /// Messages that will never be entered, until that is on disk.
    var unentered: [SendID: UnenteredMessage] = [:]
    /// Rows that the service refused and that are still on the disk: the session sends nothing behind them.
    var refusedRows: [PublishID: ChannelID] = [:]
    var connectNumber: UInt64
    var reservedConnectNumber: UInt64
    /// Up to here the reservation is on disk.
    var durableConnectNumber: UInt64
    /// Connects in a row that the service refused as stale: the durable number is older than one it has seen.
    var staleRefusals = 0
    var user: UserID?
    /// Whose messages are stored, as the first told who told any; nil: nobody has.
    var owner: UserID?
    /// The same for the user's device.
    var ownerDevice: DeviceID?
    /// Whether that is kept, which it is once the service took a token of it.
    var isDeviceStored: Bool
    /// Who waits for the user to be known.
    var userWaiters: [(ClientError?) -> Void] = []
    /// Tokens that were asked for so that it becomes known.
    var lastUserQuestion: UInt64 = 0
    /// The last of these, while somebody waits for it.
    var userQuestion: Task<Void, Never>?
    var resumeTicket: StoredSecret?
    var transportTickets: [String: StoredSecret]
    var addressTokens: [String: [UInt8]]
    /// Access points whose TLS ticket was used for a handshake that failed.
    var suspectTickets: Set<AccessPoint> = []
    /// How many handshakes in a row with an access point's TLS ticket got no answer in the present network.
    var silentTickets: [AccessPoint: Int] = [:]
    var pending = PendingWrites()
    var isFlushing = false
    var flushScheduled = false
    /// Runs while the last write failed: the next one is tried when it is over, or when somebody asks.
    var retryTimer: DriverTimer?
    /// How often it was over since a write succeeded.
    var retries = 0
    /// The app let go of the client: nothing is written any more.
    var isShutDown = false
    var afterFlush: [(ClientError?) -> Void] = []
    var needsNewProducer = false
    var storedCursorVersion: UInt64

    // What the app waits for.
    var ledger = ConfirmationLedger()
    /// How much may wait for the app to read it.
    var unreadLimit = ClientOutlets.unreadLimit
    /// Why the client stays away until the app has read half of that; nil: it doesn't.
    var awayForUnread: String?
    var gapsBefore: [ChannelID: MessageGap] = [:]
    /// What own messages weigh that went by unseen behind these gaps, and how much may.
    var hiddenBehindGaps: [ChannelID: Int] = [:]
    var hiddenLimit = 0
    /// Channels whose log lost its end, until the place that this took the cursor back to is on disk: the one there is beyond the end.
    var setBack: Set<ChannelID> = []
    /// Rooms in which the user's stay ended, until the service was told that the app is done with its last entry.
    var endedStays: [ChannelID: StoredStay] = [:]
    /// With the app's own cursors: up to where earlier processes handed over the requests of the user's inbox.
    var handedOver: [ChannelID: Position] = [:]
    var roomRequests: [UInt64: RoomWaiter] = [:]
    var lastRoomRequest: UInt64 = 0
    var historyWaiters: [UInt64: HistoryWaiter] = [:]
    var lastHistoryRequest: UInt64 = 0
    var membersWaiters: [UInt64: MembersWaiter] = [:]
    var lastMembersRequest: UInt64 = 0
    var conversationWaiters: [UInt64: ConversationWaiter] = [:]
    var lastConversationRequest: UInt64 = 0
    var reads = ReadPlaces()
    var requestWaiters: [UInt64: RequestWaiter] = [:]
    /// Records of requests that wait for a reply.
    var requestPlaces: [Position: UInt64] = [:]
    var lastRequest: UInt64 = 0
    /// What a request is answered through.
    weak var core: ClientCore?
    var presence = PresenceWishes()
    var connectWaiters: [UInt64: (ClientError?) -> Void] = [:]
    var lastConnectWaiter: UInt64 = 0
    var disconnectWaiters: [() -> Void] = []
    var disconnectTimer: DriverTimer?
    /// Disconnects whose changes are neither on disk nor known to be unwritable.
    var unwrittenDisconnects = 0
    /// The last of the app's disconnections that was done, or came before this driver.
    var disconnections: UInt64 = 0
    /// The last of the app's wishes to be connected with a shared outbox that came here.
    var lastWish: UInt64 = 0
    var logout = LogoutState.none
    /// The account's erasure that was asked for and is not answered.
    var erasure: PendingAccountErasure?
    /// One was asked for and not refused: it may be done, or be under way.
    var isErasureOpen = false
    var statistics = ClientStatistics()
    /// The service's time in milliseconds since 1970, and when it was told; nil before the first connection.
    var serverClock: (time: UInt64, at: NIODeadline)?
    var monitor: NetworkMonitor?
    var networks: NetworkMemory
    /// The network that the session learns about; nil before the first link.
    var network: String?
    /// The network's name as the app gave it.
    var appNetwork: String?
    /// Messages of other processes that are on their way into the outbox.
    var adopting: Set<SendID> = []
    /// Called when the storage says that another process owns it now.
    var onOwnershipLost: (@Sendable () -> Void)?
    /// Called when another link of the device took over, before the app is told; goes on once it is known whose it was.
    var onReplaced: (@Sendable (_ goOn: @escaping @Sendable () -> Void) -> Void)?
    /// Another process goes on with the outbox: nothing is written or sent any more.
    var isRetired = false
    /// Tests and demonstrations only: no link of this client hears or says anything.
    var isInOutage = false

    init(
        configuration: LonglineClient.Configuration, state: StoredClientState, loop: any EventLoop,
        clock: DriverClock, connector: any LinkConnector, fetcher: AccessFetcher?, tokens: TokenCalls,
        outlets: ClientOutlets, random: any RandomNumberGenerator
    ) {
        self.configuration = configuration
        self.loop = loop
        storageExecutor = configuration.storage.handsOverAtOnce ? LoopExecutor(eventLoop: loop) : nil
        self.clock = clock
        self.connector = connector
        self.fetcher = fetcher
        self.tokens = tokens
        self.outlets = outlets
        self.logger = configuration.logger
        var random = random
        let producer = state.producer ?? ProducerID(high: random.next(), low: random.next())
        if state.producer == nil { pending.producer = producer }
        self.random = random
        access = AccessBook(
            state.access, routes: state.controlRoutes, controls: Set(configuration.control.map(\.url)),
            verifier: fetcher?.verifier, user: configuration.user ?? state.user, now: clock.now(), wall: clock.wall())
        if let error = access.distrust {
            logger.warning("the control layer's last answer is not used", metadata: ["error": "\(error)"])
        }
        plan = Self.plan(configuration)
        outbox = Outbox(
            producer: producer, lastID: state.lastID, chains: state.chains, rows: state.outbox,
            limits: configuration.outbox)
        for row in state.outbox { outbox.note(OutboxAge(queuedAt: row.queuedAt, clock: clock), of: row.send) }
        leftRows = Set(state.outbox.filter(\.attempted).map(\.id))
        outcomes = OutcomeMemory(state.outcomes)
        connectNumber = state.connectNumber
        reservedConnectNumber = state.connectNumber
        durableConnectNumber = state.connectNumber
        user = configuration.user ?? state.user
        owner = state.user ?? configuration.user
        if state.user == nil { pending.user = configuration.user }
        ownerDevice = state.device ?? configuration.device
        isDeviceStored = state.device != nil
        // Of a ticket that an older version of the library kept it isn't known whether it is the device's that the app names.
        resumeTicket = isDeviceStored || configuration.device == nil ? state.resumeTicket : nil
        transportTickets = state.transportTickets
        addressTokens = state.addressTokens
        storedCursorVersion = state.cursorVersion
        networks = NetworkMemory(state.networks)
        appNetwork = configuration.network.map { "app:" + $0 }
        var sessionConfiguration = ClientSessionConfiguration()
        sessionConfiguration.agent = configuration.agent
        sessionConfiguration.heartbeat = configuration.heartbeat
        sessionConfiguration.connectTimeout = TimeAmount(configuration.connectTimeout)
        if case .on(let plain) = configuration.compression {
            sessionConfiguration.acceptsBatches = true
            sessionConfiguration.plainChannels = plain
        }
        session = ClientSession(
            configuration: sessionConfiguration, producer: producer, cursors: state.cursors,
            cursorVersion: state.cursorVersion)
        applyAccess()
        takeEndedStays(state)
        forgetOldAccessPoints()
        giveUpUnrepresentable()
    }

    static func plan(_ configuration: LonglineClient.Configuration) -> ReconnectPlan {
        ReconnectPlan(
            policy: configuration.backOff, accessPoints: configuration.accessPoints,
            stopsOnRefusedToken: configuration.stopsOnRefusedToken)
    }

    /// Runs `body` on the loop, from anywhere, while the driver lives.
    func hop<Value: Sendable>(_ body: @escaping (ConnectionDriver, Value) -> Void) -> @Sendable (Value) -> Void {
        let bound = NIOLoopBound((driver: self, body: body), eventLoop: loop)
        let loop = loop
        return { value in loop.execute { bound.value.body(bound.value.driver, value) } }
    }

    func publish(_ state: ConnectionState) {
        logger.debug("connection state", metadata: ["state": "\(state.summary)"])
        outlets.states.send(state)
    }

    // MARK: Connect and disconnect

    /// Keeps the session connected from now on. `done` is called when it is the first time, or when it never will be.
    /// - Parameter isNews: false: the app has asked for it just before, and only waits now.
    func connect(isNews: Bool = true, _ done: ((ClientError?) -> Void)?) -> UInt64 {
        if let error = ending {
            done?(error)
            return 0
        }
        lastConnectWaiter += 1
        let id = lastConnectWaiter
        if case .connected = phase {
            done?(nil)
            return id
        }
        if !isNews, case .stopped(let code, let reason) = phase {
            // By what came of what this waits for.
            done?(outlets.lastFailure.error ?? ClientError(stoppedBy: code, reason: reason))
            return id
        }
        if let done { connectWaiters[id] = done }
        switch phase {
        case .idle, .stopped:
            outlets.messages.reopen()
            outlets.requests.reopen()
            outlets.lastFailure.set(nil)
            plan = Self.plan(configuration)
            applyAccess()
            attempts = 0
            isReturn = false
            startMonitor()
            beginAttempt()
        // The app knows better than back-off that it is worth a try.
        case .preparing, .connecting, .waiting: if isNews { connectNow(forUser: true) }
        case .connected: break
        }
        return id
    }

    func cancelConnectWaiter(_ id: UInt64) {
        connectWaiters.removeValue(forKey: id)?(ClientError(.disconnected, message: "the wait was cancelled"))
    }

    func resolveConnectWaiters(_ error: ClientError?) {
        let waiters = connectWaiters
        connectWaiters = [:]
        for waiter in waiters.values { waiter(error) }
    }

    /// Ends the connection with a word to the service. `done` is called when that was said and everything is on disk.
    func disconnect(_ done: @escaping () -> Void) {
        guard case .none = logout, !isRetired else { return done() }
        disconnectWaiters.append(done)
        drainConfirmations()
        generation += 1
        question?.cancel()
        attemptTimer?.cancel()
        if case .waiting(let timer) = phase { timer.cancel() }
        // First of all not connected: the end of the link then leads to no other attempt.
        let wasConnected = if case .connected = phase { true } else { false }
        phase = .idle
        if let link = current {
            if wasConnected {
                session.acknowledgeAll(now: clock.now())
                session.close(Close(code: .normal), now: clock.now())
                performActions(of: link)
            }
            endCurrent(farewell: Close(code: .normal))
        }
        becomeIdle(.idle, .disconnected, error: ClientError(.disconnected, message: "the client was disconnected"))
        disconnectTimer?.cancel()
        disconnectTimer = schedule(in: TimeAmount(configuration.closeTimeout)) { driver in
            for link in driver.closing.values { link.abandon() }
            driver.closing = [:]
            driver.resolveDisconnects()
        }
        unwrittenDisconnects += 1
        afterDurable { [unowned self] _ in
            unwrittenDisconnects -= 1
            finishDisconnect()
        }
    }

    /// The farewell was said, or the disk took what there was.
    func finishDisconnect() {
        if closing.isEmpty, unwrittenDisconnects == 0 { resolveDisconnects() }
    }

    private func resolveDisconnects() {
        disconnectTimer?.cancel()
        let waiters = disconnectWaiters
        disconnectWaiters = []
        for waiter in waiters { waiter() }
    }

    func becomeIdle(_ phase: Phase, _ state: ConnectionState, error: ClientError) {
        self.phase = phase
        isAwaited = false
        monitor?.stop()
        monitor = nil
        stopRefreshing()
        publish(state)
        resolveConnectWaiters(error)
        resolveUserWaiters(error)
        failRoomRequests(error)
        failHistory(error)
        failMembers(error)
        failConversationRequests(error)
        failRequests(error)
        failPresence(error)
        answerErasure(Self.erasureUnknown(error.message))
        outlets.messages.finish()
        outlets.requests.finish()
    }

    var currentStatistics: ClientStatistics {
        var now = statistics
        now.waiting = outbox.count
        now.unconfirmed = ledger.count
        now.putOff = session.publishesPutOff
        now.lastPutOff = session.lastPutOff
        now.link = current?.mobile?.linkStatistics
        now.controlTransport = access.transport
        now.accessAge = access.age(wall: clock.wall())
        now.learnedHeartbeat = session.learnedInterval.map { Duration($0) }
        return now
    }
}
