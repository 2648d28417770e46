public import LonglineWire
public import NIOCore
import NIOPosix
import QUICTransport
import Synchronization

/// A device's connection to a Longline service: it stays connected, sends each message once, and delivers what comes in
/// order.
///
/// ```swift
/// let client = try LonglineClient(configuration: .init(accessPoints: [point], tokenProvider: { token }))
/// try await client.connect()
/// try await client.send("hello", to: .user("bob")).acknowledged()
/// for await message in client.messages { print(message.sender, message.text) }
/// ```
///
/// Every method may be called from any thread or task. One client is one device's session: two with the same storage
/// or the same device in their tokens take the session away from each other.
public final class LonglineClient: Sendable {
    let core: ClientCore

    /// A client that does nothing yet.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/invalidConfiguration``.
    public convenience init(configuration: Configuration) throws {
        try self.init(configuration: configuration, resolver: .shared)
    }

    /// A client that finds hosts as it is told to.
    convenience init(configuration: Configuration, resolver: NameResolver) throws {
        let group = configuration.eventLoopGroup ?? MultiThreadedEventLoopGroup.singleton
        try self.init(
            configuration: configuration, loop: group.next(), clock: .system,
            connector: QUICConnector(configuration: configuration, resolver: resolver),
            asker: ControlConnector(configuration: configuration, group: group, resolver: resolver))
    }

    init(
        configuration: Configuration, loop: any EventLoop, clock: DriverClock, connector: any LinkConnector,
        asker: (any ControlAsker)? = nil,
        random: @escaping @Sendable () -> any RandomNumberGenerator = { SystemRandomPool() }
    ) throws {
        try configuration.validate()
        let controls = try configuration.controlEndpoints()
        var fetcher: AccessFetcher?
        if let asker, !controls.isEmpty {
            fetcher = AccessFetcher(
                controls: controls, asker: asker, verifier: configuration.controlKeys.map { AccessVerifier($0) },
                logger: configuration.logger)
        }
        core = ClientCore(
            configuration: configuration, loop: loop, clock: clock, connector: connector, fetcher: fetcher,
            random: random)
    }

    deinit { core.shutDown() }

    // MARK: Connection

    /// Connects, and keeps the session connected from then on: every loss is followed by a reconnect.
    ///
    /// Returns when the service accepted the session for the first time, and waits for that however long it takes: attempts that
    /// fail, for want of a network or of an answer of the control layer, for a host or a certificate that is wrong, end in no error
    /// (``lastFailure`` and ``states`` tell). ``connect(within:)`` waits no longer than it is told. Cancelling the task ends the wait only;
    /// in one that is cancelled already nothing begins.
    /// A client that waits for its next attempt tries at once, or as soon as the service allows; of calls in a row, which with those of
    /// ``start()`` and ``setMode(_:)`` count together, five do that, and then one every 15 to 20 seconds.
    /// - Throws: ``ClientError``: ``ClientError/Code/storage`` when the durable state can't be read,
    ///   ``ClientError/Code/stopped`` when the service does not want this client, ``ClientError/Code/otherUser`` when the storage holds
    ///   another user's messages than the one who logs in, ``ClientError/Code/otherDevice`` when it holds those of another device,
    ///   ``ClientError/Code/disconnected``. `CancellationError` when the task is cancelled.
    public func connect() async throws {
        try await core.connect()
    }

    /// As ``connect()``, for no longer than `limit`. Once that is over the client goes on to try, until ``disconnect()``.
    /// - Throws: as ``connect()``. When the time is over, why the last attempt failed (``lastFailure``:
    ///   ``ClientError/Code/connectFailed``, ``ClientError/Code/notConnected`` with the service's ``ClientError/closeCode``,
    ///   ``ClientError/Code/tokenProvider``, ``ClientError/Code/controlUnavailable``, ``ClientError/Code/controlAnswerInvalid``,
    ///   ``ClientError/Code/controlVersionUnsupported``, ``ClientError/Code/controlAnswerUntrusted``); ``ClientError/Code/timedOut``
    ///   where none has failed yet; ``ClientError/Code/storageInUse`` where another process owns a shared outbox.
    ///   `CancellationError` when the task is cancelled.
    public func connect(within limit: Duration) async throws {
        try await core.connect(within: limit)
    }

    /// As ``connect()``, without the wait: the client connects when it can, and ``states`` tells.
    /// - Throws: ``ClientError`` when the durable state can't be read, ``ClientError/Code/loggedOut``,
    ///   ``ClientError/Code/disconnected`` when ``disconnect()`` was called meanwhile. Another process that owns a shared outbox is no
    ///   error: the client waits for its turn.
    public func start() async throws {
        try await core.start()
    }

    /// Says goodbye and stays away until ``connect()``.
    ///
    /// What the app confirmed is told to the service and is on disk; messages that wait in the outbox stay there.
    /// Returns within ``Configuration/closeTimeout`` or so. The sequence of ``messages`` ends. A ``connect()`` or ``start()`` that is called
    /// while this goes on connects again behind the farewell: the last call holds.
    public func disconnect() async {
        await core.disconnect()
    }

    /// Logs this device out and ends the client for good.
    ///
    /// With a connection the service is told: it makes every token and ticket of the device void, durably, before this
    /// returns ``LogoutResult/acknowledged``. Without one, or without an answer within ``Configuration/closeTimeout``, it is
    /// ``LogoutResult/localOnly(_:)``. In every case the storage is wiped: messages that wait in the outbox, cursors,
    /// tickets. Their receipts throw ``ClientError/Code/loggedOut``, and so does every later call. The next login takes a
    /// new client, and a token that was issued after the logout.
    /// - Throws: ``ClientError`` when the storage could not be wiped; the client has ended all the same, and another call
    ///   tries again. ``ClientError/Code/storageInUse`` while another process of the app owns a shared outbox: nothing has happened then.
    @discardableResult
    public func logout() async throws -> LogoutResult { try await core.logOut() }

    /// Has the service erase the user's account, then ends the client for good as ``logout()`` does.
    ///
    /// All that the service keeps of the user goes: inbox, memberships, devices, cursors. Messages that were sent to others
    /// stay theirs. It takes a connection, and a token whose scope has the word `erase`. Returns when the service has
    /// resolved it durably, which nothing undoes, and this device's storage is wiped; the user's other devices are logged out.
    ///
    /// Where the outcome is unknown the client goes on. As soon as the service closes as it does once the account is erased, with
    /// ``/LonglineWire/CloseCode/loggedOut`` or at the next connect ``/LonglineWire/CloseCode/credentialRevoked``, the client ends for good
    /// and wipes its storage without another call: its state is ``ConnectionState/stopped(_:reason:)`` then. That is remembered for as long
    /// as this client lives.
    /// - Parameter timeout: how long to wait for the service's answer. Calls beside one another ask once, and each waits for its own time.
    /// - Throws: ``ClientError/Code/refused`` when the token gives no such right or the service can't now
    ///   (``ClientError/refusal``); ``ClientError/Code/notConnected`` without a connection, when the service was not asked;
    ///   ``ClientError/Code/outcomeUnknown`` when no answer came in time or the connection ended before it;
    ///   ``ClientError/Code/loggedOut``; what the storage throws when
    ///   the account is erased and the storage could not be wiped (``logout()`` wipes it again). In all but the last two cases
    ///   the client goes on.
    public func eraseAccount(timeout: Duration = .seconds(30)) async throws {
        try await core.eraseAccount(within: timeout)
    }

    /// The client's states: first the present one, then every change. Each call makes a stream of its own; a reader that
    /// lags by more than 256 loses the oldest.
    public var states: AsyncStream<ConnectionState> { core.outlets.states.stream() }

    /// Why there is no connection: how the last attempt failed or the last connection ended, also where the next attempt began at once;
    /// why the service stopped the client. nil while connected, and before anything has failed since the app last asked to connect.
    public var lastFailure: ClientError? { core.outlets.lastFailure.error }

    /// The present state.
    public var state: ConnectionState { core.outlets.states.latest ?? .disconnected }

    /// What else happens from now on: gaps, skipped ranges, answers to messages of an earlier process. Ask for it before ``start()``
    /// or ``connect()``, and nothing is missed. Each call makes a stream of its own; a reader that lags by more than 256 loses the
    /// oldest.
    public var notices: AsyncStream<ClientNotice> { core.outlets.notices.stream() }

    /// Moves the connection to another local address while it goes on, or to a new port of the same one when `local` is
    /// nil (RFC 9000 section 9). Returns when the new path is validated.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/notConnected`` or ``ClientError/Code/migrationFailed``; the
    ///   old path goes on if it still works. ``ClientError/Code/storageInUse`` or ``ClientError/Code/ownershipLost`` where another
    ///   process of the app has the outbox.
    public func migrate(to local: SocketAddress? = nil) async throws {
        let handle = try await core.handleUnlessCancelled()
        try await handle.call(ignoring: ()) { driver, done in
            driver.migrate(to: local, cause: .requested) { done($0.map { .failure($0) } ?? .success(())) }
            return 0
        }
    }

    /// Moves the connection to a new local port, as a NAT does that forgot it.
    /// - Throws: as ``migrate(to:)``.
    public func rebind() async throws { try await migrate(to: nil) }

    // MARK: The device

    /// Tells what the app is to its user now. It lasts until the next call, for later connections and while there is none;
    /// a new client is in the foreground. May be called from any thread or task.
    ///
    /// In ``LonglineWire/SessionMode/background`` the service gathers what is not urgent (messages of rooms and broadcasts, but for
    /// channels that ``setUrgency(_:of:)`` made ``LonglineWire/Urgency/control``) for up to 30 seconds, in
    /// ``LonglineWire/SessionMode/lowPower`` everything but the inbox for up to 5 minutes (its defaults), and sends it with the next thing it has to send. Nothing is lost or reordered. Back in the foreground everything comes at
    /// once. Each ``LonglineWire/SessionMode/foreground`` asks the connection whether it lives; while there is none, the next
    /// attempt begins at once, or as soon as the service allows, within the bounds of ``connect()``.
    /// - Throws: ``ClientError`` when the durable state can't be read; ``ClientError/Code/storageInUse`` while another process of the app
    ///   owns a shared outbox: say it again when ``states`` leaves ``ConnectionState/standby``.
    public func setMode(_ mode: SessionMode) async throws { try await run { $0.setMode(mode) } }

    /// Says how urgent a channel is: what is sent into it, and what the service sends of it. It lasts as long as this client;
    /// a new one begins with ``LonglineWire/Urgency/chat`` everywhere. May be called from any thread or task.
    ///
    /// What is more urgent leaves first, in both directions: a message is not held up by the file that goes into another
    /// channel. Within a channel the order stays as it is. The inbox carries all direct messages, so it is one channel.
    /// - Parameters:
    ///   - urgency: from now on.
    ///   - channel: the inbox of this user, or a room.
    /// - Throws: ``ClientError``: ``ClientError/Code/tooManyRequests`` when 256 channels have another urgency than chat, or
    ///   when the durable state can't be read; ``ClientError/Code/storageInUse`` as for ``setMode(_:)``.
    public func setUrgency(_ urgency: Urgency, of channel: ChannelID) async throws {
        if let error = try await core.ask({ $0.setUrgency(urgency, of: channel) }) { throw error }
    }

    /// Names the network that the device is in now, for what the heartbeat learns: the SSID, say, or the mobile carrier
    /// with the kind of its radio. The name stays on the device. May be called from any thread or task.
    /// - Parameter name: 1 to 250 bytes; nil derives one from the local address and the gateway, which is right for most
    ///   fixed networks.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/invalidConfiguration`` for a name of another length, or when
    ///   the durable state can't be read.
    public func setNetwork(_ name: String?) async throws {
        if let name { try Self.validate(network: name) }
        try await run { $0.setNetwork(name) }
    }

    static func validate(network name: String) throws(ClientError) {
        guard (1...250).contains(name.utf8.count) else {
            throw ClientError(
                .invalidConfiguration, message: "a network's name has 1 to 250 bytes", advice: "use a shorter name")
        }
    }

    /// The address and port at which the service sees this client; nil while not connected, and while the connection moves to another
    /// path (``ConnectionState/migrating(_:)``), which brings another one.
    public var observedAddress: String? {
        if case .connected(let info) = state { return info.observedAddress }
        return nil
    }

    /// What the client has done so far. Waits for nothing: while the storage is being opened it is what was so before.
    public var statistics: ClientStatistics { get async { await core.statistics } }

    // MARK: Messages

    /// Sends a message: it is on disk when this returns, and will be published exactly once, in the order of the calls
    /// that returned one after another, whether the client is connected or not.
    ///
    /// - Parameters:
    ///   - payload: as large as the service allows, 1 MiB by default, and 16 MiB at most. One over 15 KiB travels in parts and
    ///     lets messages of other channels pass; it is delivered whole, or not at all.
    ///   - destination: a user, a room that this user is a member of, or everybody.
    ///   - timeToLive: how long it is worth delivering, whole milliseconds from now; nil for ever.
    /// - Returns: a receipt that tells when the service has it.
    /// - Throws: ``ClientError``: ``ClientError/Code/outboxFull``, ``ClientError/Code/channelFull``,
    ///   ``ClientError/Code/payloadTooLarge``, ``ClientError/Code/storage``. A direct message before the first connect gets a
    ///   token, to learn which user this is: ``ClientError/Code/tokenProvider`` when there is none in 60 seconds,
    ///   ``ClientError/Code/unknownUser`` when it can't be read, ``ClientError/Code/disconnected`` when the client is
    ///   disconnected meanwhile. ``ClientError/Code/otherUser``, ``ClientError/Code/otherDevice`` or ``ClientError/Code/loggedOut`` where
    ///   the outbox belongs to another login. `CancellationError` in a process that does not own a shared outbox when the task was
    ///   cancelled: the message is not in the outbox then.
    @discardableResult
    public func send(
        _ payload: ByteBuffer, to destination: Destination, timeToLive: Duration? = nil
    ) async throws -> SendReceipt {
        try await core.send(payload, .message, to: destination, timeToLive: timeToLive)
    }

    /// Sends text as UTF-8; see ``send(_:to:timeToLive:)-(ByteBuffer,_,_)``.
    @discardableResult
    public func send(
        _ text: String, to destination: Destination, timeToLive: Duration? = nil
    ) async throws -> SendReceipt {
        try await send(ByteBuffer(string: text), to: destination, timeToLive: timeToLive)
    }

    /// The messages of this user's inbox and rooms, and what is broadcast to all.
    public var messages: MessageStream {
        MessageStream(
            queue: core.outlets.messages,
            confirmsWhenNextIsAsked: core.configuration.confirmation == .whenNextIsAsked)
    }

    /// The app took note of a gap that ``notices`` told. Without this the gap counts as seen once a later message of the
    /// channel is confirmed, and is told again by every new process until then. Not so that of a log which lost its end: the
    /// cursor goes back at once, and the loss is told once.
    ///
    /// Covers the messages before the gap as well, as ``Message/confirm()`` does.
    public func confirm(_ gap: MessageGap, in channel: ChannelID) {
        core.outlets.confirmations.confirm(.gap(gap), in: channel)
    }

    /// Joins a room, which is made when it doesn't exist: who joins a room without members is its owner. Waits for a
    /// connection if there is none; joining twice is joining once.
    /// - Returns: the place of the join in the room's log, and the room's settings.
    /// - Throws: ``ClientError``: ``ClientError/Code/refused``, ``ClientError/Code/notConnected`` before ``connect()``;
    ///   ``ClientError/Code/storageInUse`` while another process of the app owns a shared outbox, and
    ///   ``ClientError/Code/ownershipLost`` when it takes over before the answer: the room may be joined then.
    @discardableResult
    public func join(_ room: RoomID) async throws -> JoinReceipt { try await ask(room, .join) }

    /// Leaves a room. Waits for a connection if there is none.
    /// - Returns: the place of the leave in the room's log: the last that this user may read.
    /// - Throws: as ``join(_:)``.
    @discardableResult
    public func leave(_ room: RoomID) async throws -> Position { try await request(room, .leave) }

    func request(_ room: RoomID, _ kind: ConnectionDriver.RoomRequestKind) async throws -> Position {
        try await ask(room, kind).position
    }

    private func ask(_ room: RoomID, _ kind: ConnectionDriver.RoomRequestKind) async throws -> JoinReceipt {
        let handle = try await core.handleUnlessCancelled()
        let none = JoinReceipt(position: Position(epoch: 0, offset: 0), settings: nil)
        return try await handle.call(ignoring: none) { driver, done in
            driver.requestRoom(room, kind, done: done)
        } cancel: { driver, id in
            driver.cancelRoomRequest(id)
        }
    }

    func history(
        of channel: ChannelID, _ direction: HistoryDirection, from place: Position, limit: Int, timeout: Duration
    ) async throws -> HistoryPage {
        let request = HistoryRequest(
            request: 0, channel: channel, epoch: place.epoch, from: place.offset, direction: direction,
            limit: UInt64(clamping: limit))
        let handle = try await core.handleUnlessCancelled()
        let none = HistoryPage(channel: channel, messages: [], absent: [], hasMore: false, next: place)
        return try await handle.call(ignoring: none) { driver, done in
            driver.requestHistory(request, timeout: TimeAmount(timeout), done: done)
        } cancel: { driver, id in
            driver.cancelHistory(id)
        }
    }

    func members(_ request: MembersRequest, timeout: Duration) async throws -> MemberPage {
        let handle = try await core.handleUnlessCancelled()
        let none = MemberPage(total: 0, members: [], hasMore: false, settings: nil)
        return try await handle.call(ignoring: none) { driver, done in
            driver.requestMembers(request, timeout: TimeAmount(timeout), done: done)
        } cancel: { driver, id in
            driver.cancelMembers(id)
        }
    }

    func run(_ body: @escaping @Sendable (ConnectionDriver) -> Void) async throws {
        try await core.ask(body)
    }
}
