import Logging
import LonglineHTTP
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Tells apps' endpoints of messages to users who have no connection.
///
/// ```
///   a publish was entered ─▶ has the recipient a session? ─no─▶ queue ─▶ muted? retracted? ─▶ POST ─▶ told, or again later
///       room ─▶ its members, once a second ─┘      │ yes           ▲
///                                                held ─last one ends┘
///   a device confirmed ──────────────────────────────────────────▶ held no more, and out of the queue
///      └─ was it told, and does the endpoint want cancels? ─yes─▶ a cancel, into the queue
///   a message was retracted ─ as well ─────────────────────────────────────────┘
/// ```
/// A session may be that of a device that vanished without a word, so that it alone is no sign that the message arrived.
///
/// Calls come from the event loops and cost a table operation; everything else happens in ``run()``. What waits is written to
/// the journal once in a while: the process's sudden end loses the notifications of the last moments, never a message.
final class WebhookDispatcher: Sendable {
    /// One tenant's endpoint, or that of all tenants that aren't named.
    struct Endpoint: Sendable {
        let settings: WebhookSettings
        let client: HTTPClient
    }

    let store: any MessageStore
    /// What the store will know of devices.
    let cursors: CursorWriter
    private let registry: SessionRegistry
    private let endpoints: [TenantID?: Endpoint]
    private let journal: NotificationJournal?
    let muting: any ConversationMuting
    private let log: EventLog
    let clock: WebhookClock
    private let state: Mutex<State>
    private let wake: AsyncStream<Void>
    private let waker: AsyncStream<Void>.Continuation
    /// Whether anything waits that a confirmation may concern: asked with every one.
    private let waiting = Atomic<Int>(0)

    /// Rooms with news at one time; more are left out and counted.
    private static let maximumRooms = 10_000
    private static let roomInterval = Duration.seconds(1)
    private static let journalInterval = Duration.milliseconds(200)
    /// What is written in one transaction at most: the event loops wait while it is put together.
    private static let changesPerWrite = 1_000

    /// - Throws: ``ServerError/Code/invalidConfiguration``, or ``ServerError/Code/storeUnavailable`` for the journal.
    init(
        _ configuration: WebhookConfiguration, store: any MessageStore, cursors: CursorWriter,
        registry: SessionRegistry, log: EventLog, clock: WebhookClock,
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
    ) async throws(ServerError) {
        self.store = store
        self.cursors = cursors
        self.registry = registry
        self.log = log
        self.clock = clock
        muting = configuration.muting ?? StoredMuting(store: store, time: clock.wall)
        var endpoints: [TenantID?: Endpoint] = [:]
        if let standard = configuration.standard { endpoints[nil] = try Self.endpoint(standard, group) }
        for (tenant, settings) in configuration.tenants { endpoints[tenant] = try Self.endpoint(settings, group) }
        self.endpoints = endpoints
        let outlets = WebhookOutlets(endpoints.mapValues(\.settings))
        var queue = WebhookQueue(
            limit: configuration.maximumPending, named: outlets.named, hasJournal: configuration.journalPath != nil)
        do throws(StoreError) {
            if let path = configuration.journalPath {
                journal = try NotificationJournal(path: path)
            } else {
                journal = nil
            }
            if let journal {
                let kept = try await journal.load()
                func endpoint(_ notification: PendingNotification) -> Endpoint? {
                    endpoints[notification.key.tenant] ?? endpoints[nil]
                }
                queue.restore(
                    kept.compactMap { kept in
                        endpoint(kept).map {
                            clock.read(kept, longest: $0.settings.longestWait, oldest: $0.settings.oldestAtStart)
                        }
                    })
                // Of tenants that had a webhook before the server was started anew: they are forgotten.
                queue.restoreChanges(kept.filter { endpoint($0) == nil }.map(\.key))
            }
        } catch {
            throw ServerError(
                .storeUnavailable, message: "the notifications that wait can't be read", cause: error,
                advice: error.advice)
        }
        waiting.store(queue.count, ordering: .relaxed)
        state = Mutex(
            State(
                queue: queue, held: HeldNotifications(limit: configuration.maximumPending),
                told: HeldNotifications(limit: configuration.maximumPending), outlets: outlets))
        (wake, waker) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    private static func endpoint(
        _ settings: WebhookSettings, _ group: any EventLoopGroup
    ) throws(ServerError) -> Endpoint {
        Endpoint(settings: settings, client: try settings.client(group))
    }

    private func endpoint(of tenant: TenantID) -> Endpoint? { endpoints[tenant] ?? endpoints[nil] }

    // MARK: What sessions say

    /// A publish was entered.
    /// - Parameter expiry: the entry's, in milliseconds since 1970; 0 for none.
    func entered(_ request: AppendRequest, _ published: Published, expiry: UInt64, copy: InboxCopy?) {
        let tenant = request.device.tenant
        guard let settings = endpoint(of: tenant)?.settings else { return }
        let publish = request.publish
        // Nobody is woken for what is said of a message.
        switch publish.kind {
        case .message, .request, .reply: break
        case .retract(let target): return retracted(target, request, copy)
        case .edit, .react: return
        }
        let payload = settings.payload(of: publish)
        let now = clock.steady()
        switch request.channel {
        case .user:
            guard let recipient = publish.recipient, let copy, recipient != request.device.user else { return }
            put(
                PendingNotification(
                    key: PendingNotification.Key(
                        tenant: tenant, user: recipient, conversation: .user(request.device.user)),
                    channel: copy.channel, position: copy.position, sender: request.device.user, count: 1,
                    time: published.time, expiry: expiry, payload: payload, since: now, notBefore: now), settings)
        case .room:
            note(
                RoomNews.Message(
                    position: published.position, sender: request.device.user, time: published.time, since: now,
                    expiry: expiry, payload: payload), in: ChannelKey(tenant: tenant, channel: request.channel),
                mostConfirmed: settings.maximumRoomMembers)
        // To tell a whole tenant is the backend's affair, which published it.
        case .all: return
        }
    }

    /// A message was taken back: what was told of it is to be seen no more, where the endpoint takes cancels. What was not told yet
    /// is looked at before it is.
    private func retracted(_ target: Position, _ request: AppendRequest, _ copy: InboxCopy?) {
        guard waiting.load(ordering: .relaxed) > 0 else { return }
        let (tenant, sender) = (request.device.tenant, request.device.user)
        let now = clock.steady()
        switch request.channel {
        case .user:
            guard let recipient = request.publish.recipient, let copy, let offset = copy.target else { return }
            let key = PendingNotification.Key(tenant: tenant, user: recipient, conversation: .user(sender))
            let position = Position(epoch: copy.position.epoch, offset: offset)
            change { $0.retracted(position, of: key, isOutOfTouch: copy.isOutOfTouch, now: now) }
        case .room:
            let room = ChannelKey(tenant: tenant, channel: request.channel)
            change { $0.retracted(target, in: room, now: now) }
        case .all: return
        }
    }

    /// A device has a channel's entries up to here: what is told of them has no object any more.
    func confirmed(_ user: UserKey, _ channel: ChannelID, _ position: Position) {
        confirmed(user, CollectionOfOne(ChannelPosition(channel: channel, position: position)))
    }

    /// As ``confirmed(_:_:_:)``, of several channels at once.
    func confirmed(_ user: UserKey, _ places: some Collection<ChannelPosition>) {
        guard !places.isEmpty, waiting.load(ordering: .relaxed) > 0 else { return }
        update { state in
            for place in places {
                done(user, place.channel, place.position, of: nil, in: &state)
                let room = ChannelKey(tenant: user.tenant, channel: place.channel)
                state.rooms[room]?.confirm(user.user, place.position)
                state.telling[room]?.confirm(user.user, place.position)
            }
        }
    }

    /// The user read a conversation up to here, on whatever device.
    func read(_ user: UserKey, _ conversation: ChannelID, _ position: Position) {
        guard waiting.load(ordering: .relaxed) > 0 else { return }
        var channel = conversation
        if case .user = conversation { channel = .user(user.user) }
        update { done(user, channel, position, of: conversation, in: &$0) }
    }

    private func done(
        _ user: UserKey, _ channel: ChannelID, _ position: Position, of conversation: ChannelID?, in state: inout State
    ) {
        let gone = state.queue.confirmed(user, channel, position, of: conversation)
        state.statistics.cancelled += UInt64(gone)
        state.held.confirmed(user, channel, position, of: conversation)
        let now = clock.steady()
        let told = state.told.confirmed(user, channel, position, of: conversation)
        for news in told { state.queue.cancel(news.cancel(at: now)) }
        // What is gone may leave something to be taken back, which is due sooner.
        if gone > 0 || !told.isEmpty { waker.yield() }
    }

    /// A session of a user ended, or its app went to the background: what no device confirmed is told, unless another is there.
    func left(_ user: UserKey) {
        guard let settings = endpoint(of: user.tenant)?.settings, !isReachable(user, settings) else { return }
        let notBefore = clock.steady() + settings.delay.wholeMilliseconds
        change { state in
            for var news in state.held.take(user) {
                news.notBefore = notBefore
                state.queue.put(news)
            }
        }
    }

    private func isReachable(_ user: UserKey, _ settings: WebhookSettings) -> Bool {
        registry.isReachable(user, inBackground: !settings.notifiesBackground)
    }

    /// The account is being erased: forgets what waits, here and on the disk. Nothing more is noted of the user until
    /// ``erased(_:)``, although members are told of a room's news, and the user is one until the erasure's last step.
    /// - Throws: where the disk can't be written; the erasure must not come to its end then.
    func forget(_ user: UserKey) async throws(StoreError) {
        change { state in
            state.erasing.insert(user)
            state.forget(user)
        }
        try await journal?.forget(user.user, in: user.tenant)
    }

    /// The erasure is at its end.
    func erased(_ user: UserKey) {
        update { state in
            if !state.telling.isEmpty { state.forgotten.insert(user) }
            state.erasing.remove(user)
        }
    }

    var statistics: WebhookStatistics {
        state.withLock { state in
            var statistics = state.statistics
            statistics.waiting = state.queue.count
            statistics.held = state.held.count
            statistics.dropped += state.queue.dropped + state.held.dropped
            statistics.endpointsDown = state.outlets.down
            return statistics
        }
    }

    /// What the journal has to be told.
    var unwritten: Int { state.withLock { $0.queue.changed.count } }

    /// When the next notification may leave, by the steady clock; nil: not before a request is over, or there are news.
    var nextTime: UInt64? { state.withLock { $0.outlets.nextTime($0.queue) } }

    /// - Parameter room: where the news are, if it is a room whose members are being told.
    private func put(_ news: PendingNotification, of room: ChannelKey? = nil, _ settings: WebhookSettings) {
        let user = UserKey(news.key)
        func isKnown(_ state: State) -> Bool {
            state.forgotten.contains(user) || state.erasing.contains(user)
                || room.flatMap { state.telling[$0] }?.isKnown(to: user.user) ?? false
        }
        guard isReachable(user, settings) else {
            var news = news
            news.notBefore = clock.steady() + settings.delay.wholeMilliseconds
            return change { if !isKnown($0) { $0.queue.put(news) } }
        }
        update { if !isKnown($0) { $0.held.put(news) } }
        // The session may have ended before there was anything to be found.
        left(user)
    }

    /// Changes what waits, and has the queue looked at.
    private func change(_ body: (inout State) -> Void) {
        update(body)
        waker.yield()
    }

    private func update(_ body: (inout State) -> Void) {
        state.withLock { state in
            body(&state)
            // Within the lock, so that the last word is the newest.
            waiting.store(
                state.queue.count + state.held.count + state.told.count + state.rooms.count + state.telling.count,
                ordering: .relaxed)
        }
    }

    // MARK: Rooms

    private func note(_ message: RoomNews.Message, in room: ChannelKey, mostConfirmed: Int) {
        update { state in
            guard state.rooms[room] == nil else {
                state.rooms[room]?.add(message)
                return
            }
            guard state.rooms.count < Self.maximumRooms else {
                state.statistics.dropped += 1
                return
            }
            state.rooms[room] = RoomNews(message, mostConfirmed: mostConfirmed)
        }
    }

    /// Looks who is in the rooms with news. One look serves every message since the last.
    private func tellRooms() async {
        let rooms = state.withLock { state in
            state.telling = state.rooms
            state.rooms = [:]
            return state.telling
        }
        defer { update { ($0.telling, $0.forgotten) = ([:], []) } }
        for (room, news) in rooms {
            guard let settings = endpoint(of: room.tenant)?.settings, case .room(let name) = room.channel else {
                continue
            }
            let most = settings.maximumRoomMembers
            let list: MemberList?
            do {
                list = try await store.members(of: name, in: room.tenant, for: nil, after: nil, limit: most)
            } catch {
                log.log(.error, "members of a room with news can't be read", ["error": "\(error)"])
                tellLater(room, news)
                continue
            }
            guard let list, list.total <= most else { continue }
            for member in list.members.map(\.user) {
                guard let notification = news.notification(for: member, in: room) else { continue }
                put(notification, of: room, settings)
            }
        }
    }

    /// Puts the news of a room back, under what came since.
    private func tellLater(_ room: ChannelKey, _ news: RoomNews) {
        update { state in
            // With what was confirmed meanwhile.
            var kept = state.telling[room] ?? news
            if let later = state.rooms[room] {
                kept.add(later)
            } else if state.rooms.count >= Self.maximumRooms {
                state.statistics.dropped += 1
                return
            }
            state.rooms[room] = kept
        }
    }

    // MARK: Running

    /// Tells and writes until its task is cancelled; what waits then is written.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.every(Self.roomInterval) { await self.tellRooms() } }
            if journal != nil {
                group.addTask { await self.every(Self.journalInterval) { await self.writeJournal() } }
            }
            group.addTask { await self.tell() }
        }
        // Not cancelled with this task: what waits has to be on disk.
        await Task {
            await self.tellRooms()
            await self.writeJournal()
        }.value
        do throws(StoreError) { try journal?.close() } catch {
            log.log(.error, "the notifications' journal was not closed", ["error": "\(error)"])
        }
    }

    private func every(_ interval: Duration, _ work: @Sendable () async -> Void) async {
        while true {
            do { try await Task.sleep(for: interval) } catch { return }
            await work()
        }
    }

    private func writeJournal() async {
        guard let journal else { return }
        var written = Self.changesPerWrite
        while written == Self.changesPerWrite, unwritten > 0 { written = await writeChanges(to: journal) }
    }

    /// - Returns: how many were written; 0 when they could not be.
    private func writeChanges(to journal: NotificationJournal) async -> Int {
        let taken = Mutex(WebhookQueue.Changes())
        do throws(StoreError) {
            // Taken in the journal's turn: what is forgotten while this waits for it is not written behind that.
            try await journal.apply { [self] in
                let changes = state.withLock { $0.queue.takeChanges(limit: Self.changesPerWrite) }
                taken.withLock { $0 = changes }
                return (changes.keep.map(clock.written), changes.forget)
            }
            return taken.withLock { $0.count }
        } catch {
            log.log(.error, "notifications could not be written", ["error": "\(error)"])
            let changes = taken.withLock { $0 }
            state.withLock { $0.queue.notWritten(changes) }
            return 0
        }
    }

    private func tell() async {
        await withDiscardingTaskGroup { group in
            var timer: Task<Void, Never>?
            var wakes = wake.makeAsyncIterator()
            while !Task.isCancelled {
                let (ready, next) = takeReady()
                for taken in ready { group.addTask { await self.tell(taken) } }
                timer?.cancel()
                if let next {
                    let now = clock.steady()
                    timer = Task { [waker] in
                        guard
                            (try? await Task.sleep(for: .milliseconds(Int64(clamping: next > now ? next - now : 1))))
                                != nil
                        else { return }
                        waker.yield()
                    }
                }
                _ = await wakes.next()
            }
            timer?.cancel()
            group.cancelAll()
        }
    }

    /// What is due and may leave now, and when to look again.
    private func takeReady() -> (ready: [WebhookQueue.Taken], next: UInt64?) {
        let now = clock.steady()
        return state.withLock { state in
            (state.outlets.take(from: &state.queue, now: now), state.outlets.nextTime(state.queue))
        }
    }

    private func tell(_ taken: WebhookQueue.Taken) async {
        let tenant = taken.notification.key.tenant
        guard let endpoint = endpoint(of: tenant) else { return }
        let outcome = await outcome(of: taken.notification, endpoint)
        let now = clock.steady()
        change { state in
            state.outlets.ended(outcome.end, of: tenant, now: now)
            state.note(outcome, of: taken, endpoint.settings, now: now)
        }
        switch outcome {
        case .told, .muted, .expired, .confirmed, .retracted, .notEntitled: break
        case .rejected(let status):
            log.log(.notice, "the webhook rejected a notification", ["tenant": "\(tenant)", "status": "\(status)"])
        case .failed(let reason, _), .postponed(let reason):
            log.log(.notice, "a notification was not told", ["tenant": "\(tenant)", "reason": "\(reason)"])
        }
    }
}
