import LonglineStore
public import LonglineWire
import NIOCore

/// What was entered, as a store's answers tell it: the promises that deliveries are checked against. It follows the rules
/// with code of its own, and keeps what was trimmed.
public struct Truth {
    /// One channel's log.
    public struct Log {
        /// Its life.
        public var epoch: Epoch
        /// Every entry of this life, in order.
        public var entries: [Entry] = []
        /// What lies at or below was trimmed.
        public var first: Offset = 0
        /// What was retracted, messages and their edits: ``entries`` keeps them as they were.
        public var erased: Set<Offset> = []
        /// When each entry was made.
        var moments: [Offset: WallTime.Moment] = [:]
        /// How often a sweep had taken the channel when this life began.
        var life = 0
        /// How often one had taken the device of an entry, or an outbox of that, where it ever had.
        var eras: [Offset: Int] = [:]
        private static let start = WallTime.Moment(stretch: 0, time: 0)

        /// The last entry.
        public var head: Position { Position(epoch: epoch, offset: entries.last?.offset ?? 0) }

        /// The entries above an offset.
        func entries(above offset: Offset) -> ArraySlice<Entry> {
            var low = 0
            var high = entries.count
            while low < high {
                let middle = (low + high) / 2
                if entries[middle].offset > offset { high = middle } else { low = middle + 1 }
            }
            return entries[low...]
        }

        /// Whether there was a moment since an entry was made at which its time was over.
        func isOver(_ entry: Entry, _ wall: WallTime) -> Bool {
            entry.expiry > 0 && entry.expiry <= wall.latest(since: moments[entry.offset] ?? Self.start)
        }

        /// The entry at an offset.
        func entry(at offset: Offset) -> Entry? {
            guard offset > 0 else { return nil }
            return entries(above: offset - 1).first.flatMap { $0.offset == offset ? $0 : nil }
        }
    }

    /// The range of a room that a user may read.
    public struct Stint {
        /// Nothing at or below.
        public var after: Offset
        /// The leave entry.
        public var upTo: Offset?
    }

    /// A room's owners and settings.
    struct RoomState {
        var members: Set<UserID> = []
        var owners: Set<UserID> = []
        var joining = RoomJoining.anyone
        var publishing = RoomPublishing.members
    }

    /// The logs.
    public internal(set) var logs: [ChannelID: Log] = [:]
    /// Logs that are gone, with their user's account or by a sweep, and the stays in swept rooms.
    private var goneLogs: [(channel: ChannelID, log: Log, stints: [UserID: [Stint]])] = []
    /// Every stay of a user in a room, the last one at the end.
    private var stints: [ChannelID: [UserID: [Stint]]] = [:]
    /// Where delivery of what is broadcast begins for a device: behind the last entry there was when it was first seen.
    private var begins: [DeviceName: Offset] = [:]
    /// The rooms, as their logs say.
    private(set) var rooms: [ChannelID: RoomState] = [:]

    /// Whom users block.
    var blocks: [UserID: Set<UserID>] = [:]
    /// Messages of which blocks kept copies back, with their numbers, and the places of these copies, which stay empty.
    private(set) var withheld: [UInt64: Int] = [:]
    private var emptyPlaces: Set<Offset> = []
    /// Users whose erasure took its first step, and did not come to its end: nothing of theirs may be entered any more.
    var partlyErased: Set<UserID> = []
    /// When devices were used, and their outboxes: what a sweep goes by.
    var uses: [DeviceKey: DeviceUse] = [:]
    /// How often a sweep took a device or an outbox of it, and how often it took a channel.
    var eras: [UserID: [DeviceID: Int]] = [:]
    var lives: [ChannelID: Int] = [:]

    /// The range of a channel that a user may read now, or nil for none.
    public func stint(of user: UserID, in channel: ChannelID) -> Stint? {
        if channel == .user(user) { return Stint(after: 0, upTo: nil) }
        if case .all = channel { return logs[channel] == nil ? nil : Stint(after: 0, upTo: nil) }
        return stints[channel]?[user]?.last
    }

    /// The range of a channel that is delivered to a device of a user, or nil for none.
    func stint(of user: UserID, on device: DeviceID, in channel: ChannelID) -> Stint? {
        guard var stint = stint(of: user, in: channel) else { return nil }
        if case .all = channel { stint.after = begins[DeviceName(user: user, device: device)] ?? .max }
        return stint
    }

    /// A device connects; from its first time on it gets what is broadcast.
    mutating func connects(_ device: DeviceName) {
        guard begins[device] == nil else { return }
        begins[device] = logs.values.map(\.head.offset).max() ?? 0
    }

    /// Whether a user's device may be given, or once was given, an offset.
    func mayRead(_ offset: Offset, of channel: ChannelID, _ user: UserID, _ device: DeviceID?) -> Bool {
        if channel == .user(user) { return true }
        if case .all = channel { return offset > device.flatMap { begins[DeviceName(user: user, device: $0)] } ?? .max }
        func isIn(_ stays: [Stint]?) -> Bool {
            stays?.contains { offset > $0.after && offset <= $0.upTo ?? .max } ?? false
        }
        return isIn(stints[channel]?[user]) || goneLogs.contains { $0.channel == channel && isIn($0.stints[user]) }
    }

    /// Whether a user is or was in a room that is there.
    func hasStay(_ user: UserID) -> Bool { stints.values.contains { $0[user] != nil } }

    func isMember(_ user: UserID, of channel: ChannelID) -> Bool {
        stint(of: user, in: channel).map { $0.upTo == nil } ?? false
    }

    /// The channels that a user may read.
    func channels(of user: UserID) -> [ChannelID] {
        let rooms = stints.filter { $0.value[user] != nil }.map(\.key)
        let broadcasts = logs.keys.filter { if case .all = $0 { true } else { false } }
        return [.user(user)] + (rooms + broadcasts).sorted { $0.description < $1.description }
    }

    /// Enters an entry that stands at a position.
    /// - Parameter moment: when that is.
    /// - Returns: what is wrong with that.
    mutating func enter(
        _ entry: Entry, at position: Position, in channel: ChannelID, made moment: WallTime.Moment? = nil
    ) -> String? {
        var entry = entry
        var log = logs[channel] ?? Log(epoch: position.epoch, life: lives[channel] ?? 0)
        let place = "\(channel) at \(position)"
        if log.entries.isEmpty, goneLogs.contains(where: { $0.channel == channel && $0.log.epoch == log.epoch }) {
            return "\(place): the log goes on in the life of one that is gone"
        }
        guard log.epoch == position.epoch else { return "\(place): the log's epoch is \(log.epoch)" }
        guard position.offset > log.head.offset else { return "\(place): the log ends at \(log.head.offset)" }
        if emptyPlaces.contains(position.offset) { return "\(place): the place tells of a block" }
        entry.previous = log.head.offset
        entry.offset = position.offset
        log.moments[entry.offset] = moment
        if entry.origin == nil { log.eras[entry.offset] = eras[entry.sender]?[entry.device] }
        if entry.kind == .retracted {
            guard let target = entry.target else { return "\(place): a retraction of nothing" }
            log.erased.insert(target)
            log.erased.formUnion(log.entries.filter { $0.kind == .edited && $0.target == target }.map(\.offset))
        }
        let problem = change(channel, by: entry)
        log.entries.append(entry)
        logs[channel] = log
        return problem.map { "\(place): \($0)" }
    }

    /// The copy of a record is kept back: nobody may find that out by the next offset.
    mutating func withhold(copyOf record: Entry, at position: Position) {
        withholdNumber(of: record)
        emptyPlaces.insert(position.offset + 1)
    }

    /// The copy of a record does not have its payload.
    mutating func withholdNumber(of record: Entry) {
        if let number = MessageChecker.number(of: record.payload) { withheld[number, default: 0] += 1 }
    }

    // MARK: Rooms

    /// Who may publish into a channel. To take a message back any member may, whatever the settings are by then.
    func mayPublish(_ user: UserID, in channel: ChannelID, takingBack: Bool = false) -> Bool {
        if case .all = channel { return true }
        guard isMember(user, of: channel) else { return false }
        guard !takingBack, let room = rooms[channel], room.publishing == .owners else { return true }
        return room.owners.contains(user)
    }

    /// The member who joined first.
    func oldestMember(of channel: ChannelID) -> UserID? {
        rooms[channel]?.members.min { stint(of: $0, in: channel)?.after ?? 0 < stint(of: $1, in: channel)?.after ?? 0 }
    }

    /// Whether a change tells the room's settings as they are, where the user that it is about is a member, and else none.
    func tellsSettings(_ receipt: RoomReceipt, in channel: ChannelID) -> Bool {
        guard let user = receipt.user, let room = rooms[channel], room.members.contains(user) else {
            return receipt.settings == nil
        }
        guard let settings = receipt.settings else { return false }
        let isOwner = room.owners.contains(user)
        return channel == .room(settings.room) && settings.position == receipt.head
            && settings.joining == room.joining && settings.publishing == room.publishing
            && settings.role == (isOwner ? .owner : .member)
    }

    /// Why a change of a room is refused, or nil.
    func refusal(of change: RoomChange, in channel: ChannelID, by user: UserID) -> RefusalCode? {
        let room = rooms[channel] ?? RoomState()
        let isMember = room.members.contains(user)
        switch change {
        case .join: return isMember || room.members.isEmpty || room.joining == .anyone ? nil : .forbidden
        case .appoint, .dissolve: return nil
        case .leave: return isMember ? nil : .unknownChannel
        case .act(let action):
            guard isMember else { return .unknownChannel }
            guard room.owners.contains(user) else { return .forbidden }
            switch action {
            case .add(let other):
                if room.members.contains(other) { return nil }
                guard room.joining != .nobody else { return .forbidden }
                return isBlocked(user, by: other) ? .limitReached : nil
            case .setRole(let role, let other):
                guard room.members.contains(other) else { return .unknownRecipient }
                return role == .member && room.owners == [other] ? .forbidden : nil
            case .remove, .setJoining, .setPublishing, .delete: return nil
            }
        }
    }

    private mutating func change(_ channel: ChannelID, by entry: Entry) -> String? {
        guard entry.publishID == 0 else { return nil }
        var room = rooms[channel] ?? RoomState()
        defer { rooms[channel] = room }
        switch entry.kind {
        case .message, .edited, .retracted, .reacted, .reply, .request: break
        case .joined:
            guard let user = entry.member, !room.members.contains(user) else { return "a member joins" }
            if room.members.isEmpty { room = RoomState(owners: [user]) }
            room.members.insert(user)
            stints[channel, default: [:]][user, default: []].append(Stint(after: entry.previous))
        case .left:
            guard let user = entry.member, room.members.remove(user) != nil else { return "nobody left" }
            room.owners.remove(user)
            end(user, channel, at: entry.offset)
        case .changed:
            switch entry.change {
            case .setRole(.owner, let user)?: room.owners.insert(user)
            case .setRole(.member, let user)?: room.owners.remove(user)
            case .setJoining(let joining)?: room.joining = joining
            case .setPublishing(let publishing)?: room.publishing = publishing
            case .delete?:
                for user in room.members { end(user, channel, at: entry.offset) }
                room = RoomState()
            case .add?, .remove?, nil: return "an entry that says nothing"
            }
        }
        return nil
    }

    private mutating func end(_ user: UserID, _ channel: ChannelID, at offset: Offset) {
        guard let last = stints[channel]?[user]?.indices.last else { return }
        stints[channel]?[user]?[last].upTo = offset
    }

    // MARK: Erasure

    /// Where a user was is forgotten: an erasure begins with it, so that from its first step on the user is in no room any more.
    mutating func forgetStays(of user: UserID) {
        for room in stints.keys { stints[room]?[user] = nil }
        for index in goneLogs.indices { goneLogs[index].stints[user] = nil }
    }

    /// Nothing is left of an account: who has the name from now on has another inbox, and devices that are seen for the first time.
    mutating func forget(_ user: UserID, _ devices: [DeviceID]) {
        end(.user(user))
        for device in devices { begins[DeviceName(user: user, device: device)] = nil }
        uses = uses.filter { $0.key.user != user }
    }

    /// A channel is gone, and nobody is in it any more.
    mutating func end(_ channel: ChannelID) {
        let stays = stints.removeValue(forKey: channel) ?? [:]
        rooms[channel] = nil
        guard let log = logs.removeValue(forKey: channel) else { return }
        goneLogs.append((channel: channel, log: log, stints: stays))
    }

    /// A device is gone: it is seen for the first time when it comes back.
    mutating func end(_ device: DeviceKey) {
        begins[DeviceName(user: device.user, device: device.device)] = nil
        uses[device] = nil
        eras[device.user, default: [:]][device.device, default: 0] += 1
    }

    /// The logs' new lives after a restore from a backup.
    mutating func changeEpochs(_ epoch: (ChannelID) -> Epoch?) {
        for channel in logs.keys {
            if let epoch = epoch(channel) { logs[channel]?.epoch = epoch }
        }
    }

    /// A channel's log of an epoch: what arrives late may speak of one that is gone.
    func log(_ channel: ChannelID, of epoch: Epoch) -> Log? {
        if let log = logs[channel], log.epoch == epoch { return log }
        return goneLogs.last { $0.channel == channel && $0.log.epoch == epoch }?.log
    }

    /// A channel's log in which an entry stands that a device may be sent, or told of, now. A room may be swept while what was in it is
    /// under way to somebody who was there; an inbox never is while its user is connected.
    func readableLog(_ channel: ChannelID, where isIt: (Log) -> Bool) -> Log? {
        if let log = logs[channel], isIt(log) { return log }
        guard case .room = channel else { return nil }
        return goneLogs.last { $0.channel == channel && isIt($0.log) }?.log
    }

    /// A channel's log of an epoch, in which nothing may have been entered yet; nil where the channel has another.
    func readableLog(_ channel: ChannelID, of epoch: Epoch) -> Log? {
        readableLog(channel) { $0.epoch == epoch } ?? (logs[channel] == nil ? Log(epoch: epoch) : nil)
    }

    /// The logs that are or ever were there, in one order.
    var allLogs: [(channel: ChannelID, log: Log)] {
        let present = logs.sorted { $0.key.description < $1.key.description }.map { (channel: $0.key, log: $0.value) }
        return present + goneLogs.map { (channel: $0.channel, log: $0.log) }
    }

    /// The numbers of the messages in all logs.
    var numbers: Set<UInt64> {
        Set(allLogs.flatMap { $0.log.entries.compactMap { MessageChecker.number(of: $0.payload) } })
    }
}
