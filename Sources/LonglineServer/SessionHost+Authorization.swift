import DequeModule
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// What waits for the app's decision, or behind a change of its room, in the order in which it came, channel by channel.
///
/// Bounded: publishes by their number and bytes, of the session and of the loop, requests by their number.
struct PendingDecisions {
    enum Item {
        case append(AppendRequest)
        case room(RoomWork)
    }

    private var channels: [ChannelID: Deque<Item>] = [:]
    private(set) var count = 0
    /// The publishes among them.
    private(set) var publishes = WaitingPublishes()
    /// Where the app is being asked about the first.
    var asked: Set<ChannelID> = []

    func isEmpty(_ channel: ChannelID) -> Bool { channels[channel] == nil }
    func first(_ channel: ChannelID) -> Item? { channels[channel]?.first }

    mutating func append(_ item: Item, _ channel: ChannelID) {
        channels[channel, default: []].append(item)
        count += 1
        if case .append(let request) = item { publishes.add(request) }
    }

    mutating func removeFirst(_ channel: ChannelID) {
        guard let item = channels[channel]?.popFirst() else { return }
        count -= 1
        if case .append(let request) = item { publishes.remove(request) }
        if channels[channel]?.isEmpty == true { channels[channel] = nil }
    }
}

extension SessionHost {
    /// Hands a publish to the store once the app allows it. What comes later into the same channel waits behind.
    func submit(_ request: AppendRequest) {
        if keepsRate(request, bytes: request.publish.payload.readableBytes) {
            submit(.append(request), request.channel)
        }
    }

    /// Refuses what the session does not allow. It counts as a publish: the store is asked.
    func refuse(_ request: AppendRequest, for code: RefusalCode) {
        if keepsRate(request, bytes: 0) { refuseUnlessEntered(request, code) }
    }

    /// Refuses a publish for now that comes too fast.
    private func keepsRate(_ request: AppendRequest, bytes: Int) -> Bool {
        guard let wait = waitToPublish(request.device.userKey, bytes: bytes) else { return true }
        refuse(request, .overloaded, retryAfter: wait)
        return false
    }

    /// Counts an entry that is to be made.
    /// - Returns: nil when it may go on; otherwise when another try is worth it.
    private func waitToPublish(_ user: UserKey, bytes: Int) -> TimeAmount? {
        let wait = core.publishMeter.wait(for: user, bytes: bytes, now: now)
        if wait != nil { loop.statistics.publishesOverRate += 1 }
        return wait
    }

    /// Changes a room, once the app allows it where it is asked. It counts as a publish as well: it is an entry that wakes
    /// every member.
    func submit(_ work: RoomWork) {
        guard let user = device?.userKey else { return }
        guard takes(.room), waitToPublish(user, bytes: 0) == nil else { return refuse(work, .overloaded) }
        submit(.room(work), .room(work.room))
    }

    private func submit(_ item: PendingDecisions.Item, _ channel: ChannelID) {
        let isFirst = decisions.isEmpty(channel)
        if isFirst, !isBehindChange(item), let refusal = known(item) { return perform(item, refusal: refusal) }
        guard wait(item, channel) else { return }
        if isFirst { goOn(channel) }
    }

    /// Whether it is a publish into a room that a change of this session's is on its way to: as a member or not is judged behind that.
    /// Changes are in order by themselves.
    private func isBehindChange(_ item: PendingDecisions.Item) -> Bool {
        guard case .append(let request) = item, case .room(let room) = request.channel else { return false }
        return roomChanges[room] != nil
    }

    /// A change of a room leaves for the store.
    func roomChangeBegins(in room: RoomID) { roomChanges[room, default: 0] += 1 }

    /// A change of a room was answered: what waits behind it goes on.
    func roomChangeEnded(in room: RoomID) {
        let left = roomChanges[room, default: 1] - 1
        roomChanges[room] = left > 0 ? left : nil
        if left == 0 { goOn(.room(room)) }
    }

    /// Puts in line what has to wait, or refuses it.
    /// - Returns: whether it waits.
    private func wait(_ item: PendingDecisions.Item, _ channel: ChannelID) -> Bool {
        let hasPlace = decisions.count < core.limits.appendsPerSession
        switch item {
        case .append(let request):
            guard hasPlace, hasRoom(for: request, beside: decisions.publishes, loop.undecidedPublishes) else {
                refuseWithoutRoom(request)
                return false
            }
            loop.undecidedPublishes.add(request)
            decisions.append(.append(request.inOwnStorage), channel)
        case .room(let work):
            guard hasPlace else {
                refuse(work, .overloaded)
                return false
            }
            decisions.append(item, channel)
        }
        return true
    }

    private func takeFirst(_ channel: ChannelID) {
        if case .append(let request) = decisions.first(channel) { loop.undecidedPublishes.remove(request) }
        decisions.removeFirst(channel)
    }

    func dropDecisions() {
        loop.undecidedPublishes.remove(all: decisions.publishes)
        decisions = PendingDecisions()
    }

    /// Does what waits in a channel, as far as its turn came and the answers are known; then asks.
    private func goOn(_ channel: ChannelID) {
        while phase != .ended, !decisions.asked.contains(channel), let next = decisions.first(channel),
            !isBehindChange(next)
        {
            guard let refusal = known(next) else { return ask(channel, next) }
            takeFirst(channel)
            perform(next, refusal: refusal)
        }
    }

    /// Asks about the first that waits in a channel.
    private func ask(_ channel: ChannelID, _ item: PendingDecisions.Item) {
        guard let gate = core.authorization, let question = question(of: item) else { return }
        decisions.asked.insert(channel)
        offLoop {
            await gate.refusal(of: question)
        } then: { host, refusal in
            host.decided(channel, refusal)
        }
    }

    /// Takes the decision about the first that waits, then goes on.
    private func decided(_ channel: ChannelID, _ refusal: RefusalCode?) {
        decisions.asked.remove(channel)
        guard phase != .ended, let first = decisions.first(channel) else { return }
        takeFirst(channel)
        perform(first, refusal: refusal)
        goOn(channel)
    }

    /// What the app would be asked; nil for what it isn't asked about: leaving, and notes to oneself.
    private func question(of item: PendingDecisions.Item) -> AuthorizationQuestion? {
        guard let device else { return nil }
        switch item {
        case .append(let request):
            guard case .user = request.channel else {
                return AuthorizationQuestion(.publish, by: device, in: request.channel)
            }
            guard let recipient = request.publish.recipient, recipient != device.user else { return nil }
            return AuthorizationQuestion(.publish, by: device, in: .user(recipient))
        case .room(let work):
            switch work.change {
            case .join: return AuthorizationQuestion(.join, by: device, in: .room(work.room))
            case .act(let action):
                return AuthorizationQuestion(.manage, by: device, in: .room(work.room), change: action)
            case .leave, .appoint, .dissolve: return nil
            }
        }
    }

    /// - Returns: nil when the app has to be asked.
    private func known(_ item: PendingDecisions.Item) -> RefusalCode?? {
        guard let gate = core.authorization, let question = question(of: item) else { return .some(nil) }
        return gate.known(question)
    }

    private func perform(_ item: PendingDecisions.Item, refusal: RefusalCode?) {
        switch (item, refusal) {
        case (.append(let request), nil): enqueue(request)
        case (.append(let request), let code?) where code.isTemporary: refuse(request, code)
        case (.append(let request), let code?): refuseUnlessEntered(request, code)
        case (.room(let work), nil): changeRoom(work)
        case (.room(let work), let code?): refuse(work, code)
        }
    }

    /// Refuses a publish for now, before it gets to the store.
    /// - Parameter retryAfter: when another try is worth it; nil: as the limits say, for codes that are worth one.
    func refuse(_ request: AppendRequest, _ code: RefusalCode, retryAfter: TimeAmount? = nil) {
        loop.statistics.countRefusal(code)
        let wait = retryAfter ?? (code.isTemporary ? core.limits.retryAfter : .zero)
        // A fraction of a millisecond is not nothing.
        let milliseconds = wait > .zero ? max(1, wait.wholeMilliseconds) : 0
        let refused = Refused(id: request.publish.id, code: code, retryAfter: milliseconds)
        session.appended(channel: request.channel, id: request.publish.id, outcome: .refused(refused), now: now)
    }
}
