import LonglineWire
import NIOCore

/// What may be unconfirmed at the device in all channels together, beside each channel's window: an app in hundreds of rooms that
/// confirms nothing costs neither side more memory than this.
///
/// ```
///               |---------- goes on ----------|-- begins --|
///   control     |        up to 3/4 of it      |  up to it  |   1/4 of the limit
///   chat        |                             |            |   1/2
///   bulk        |                             |            |   1/4
/// ```
/// Each urgency has a share that is its own: what the app leaves unconfirmed in bulk holds up no chat, and the other way round. A
/// channel with nothing unconfirmed *begins*, with one entry; any other *goes on*. So the channels that the app confirms get on,
/// one entry at a time at least, while others fill most of the share. Who has no room stands in line, and its entries in the log.
///
/// Large entries, those in parts, are counted apart: one alone may weigh more than all shares, and can't be confirmed before the
/// last of it came. So it must not take the room of those that pass it meanwhile; see ``UnconfirmedSum/mayBeginParts(of:besides:limit:)``.
extension ServerSession {
    /// Channels that have something to deliver and no room, in the order of ``ReadTurns``.
    struct RoomLines {
        /// With nothing unconfirmed.
        var beginning: ReadTurns
        var goingOn: ReadTurns
        /// Before an entry in parts.
        var parts = ReadTurns(limit: .max)

        init(limit: Int) {
            beginning = ReadTurns(limit: limit)
            goingOn = ReadTurns(limit: limit)
        }

        var isUnused: Bool { beginning.isUnused && goingOn.isUnused && parts.isUnused }

        /// Whether it is a channel's turn.
        func isCalled(_ channel: ChannelID) -> Bool {
            beginning.isUnderWay(channel) || goingOn.isUnderWay(channel)
        }

        mutating func ended(_ channel: ChannelID) {
            beginning.ended(channel)
            goingOn.ended(channel)
        }

        mutating func remove(_ channel: ChannelID) {
            beginning.remove(channel)
            goingOn.remove(channel)
            parts.remove(channel)
        }
    }

    /// Up to how much may be unconfirmed in a channel now: at most its window.
    mutating func allowance(of channel: ChannelID) -> Int {
        guard let (own, urgency) = modify(channel, { ($0.unconfirmed.bytes, $0.urgency) }) else { return window }
        let share = UnconfirmedSum.share(of: urgency, in: configuration.deliveryBudget)
        let used = unconfirmed[urgency].bytes
        let left = UnconfirmedSum.goingOn(share) - used
        if left > 0 { return min(window, own + left) }
        return own == 0 && used < share ? 1 : 0
    }

    /// Whether a channel may send what it has; if not, it stands in line.
    mutating func mayFill(_ channel: ChannelID) -> Bool {
        if roomLines == nil, isSpacious { return true }
        let window = window
        guard
            let (own, urgency) = modify(
                channel, { $0.wantsRoom(window: window) ? ($0.unconfirmed.bytes, $0.urgency) : nil }) ?? nil
        else { return true }
        let isBeginning = own == 0
        if own < allowance(of: channel) {
            guard let lines = roomLines, !lines.isCalled(channel) else { return true }
            if (isBeginning ? lines.beginning : lines.goingOn).isEmpty(of: urgency) { return true }
        }
        standInLine(channel, isBeginning: isBeginning, urgency)
        return false
    }

    /// Whether there is still room for a channel that stood in the queue for a read.
    mutating func hasRoom(_ channel: ChannelID) -> Bool {
        if isSpacious { return true }
        let allowance = allowance(of: channel)
        return modify(channel) { $0.sender?.payload != nil || $0.unconfirmed.bytes < allowance } ?? true
    }

    /// So little is unconfirmed that any channel may go on: as a rule, and known at once.
    private var isSpacious: Bool {
        unconfirmed.total < UnconfirmedSum.goingOn(UnconfirmedSum.share(of: .bulk, in: configuration.deliveryBudget))
    }

    private mutating func standInLine(_ channel: ChannelID, isBeginning: Bool, _ urgency: Urgency) {
        let isNew = modify(channel) { state in
            if isBeginning {
                defer { state.standsToBegin = true }
                return !state.standsToBegin
            }
            defer { state.standsToGoOn = true }
            return !state.standsToGoOn
        }
        guard isNew == true else { return }
        changeLines { lines in
            if isBeginning { lines.beginning.append(channel, urgency) } else { lines.goingOn.append(channel, urgency) }
        }
    }

    /// Has a channel wait until it may begin an entry in parts.
    mutating func standForParts(_ channel: ChannelID) {
        let urgency = modify(channel) { state in
            defer { state.standsForParts = true }
            return state.standsForParts ? nil : state.urgency
        }
        guard let urgency = urgency ?? nil else { return }
        changeLines { $0.parts.append(channel, urgency) }
    }

    private mutating func changeLines(_ body: (inout RoomLines) -> Void) {
        var lines = roomLines ?? RoomLines(limit: max(1, configuration.maximumReads))
        roomLines = nil
        body(&lines)
        roomLines = lines.isUnused ? nil : lines
    }

    /// Lets those go on that stand in line, as far as there is room: no more at once than may read.
    mutating func shareRoom(now: NIODeadline) {
        guard roomLines != nil, !isSharingRoom else { return }
        isSharingRoom = true
        while case .up = phase, let next = nextInLine() {
            advance(next, now: now)
            if modify(next, { $0.isQueued || $0.sender?.isReading == true }) != true { roomLines?.ended(next) }
        }
        isSharingRoom = false
        if roomLines?.isUnused == true { roomLines = nil }
    }

    private mutating func nextInLine() -> ChannelID? {
        let limit = configuration.deliveryBudget
        let sum = unconfirmed
        func able(_ part: (Int) -> Int) -> [Urgency] {
            Urgency.allCases.filter { sum[$0].bytes < part(UnconfirmedSum.share(of: $0, in: limit)) }
        }
        if let next = roomLines?.beginning.next(of: able { $0 }) {
            modify(next) { $0.standsToBegin = false }
            return next
        }
        guard let next = roomLines?.goingOn.next(of: able(UnconfirmedSum.goingOn)) else { return nil }
        modify(next) { $0.standsToGoOn = false }
        return next
    }

    /// Whether one more channel of an urgency may begin an entry in parts.
    func mayBeginParts(of urgency: Urgency) -> Bool {
        let promised = promisedParts.count { self.urgency(of: $0) == urgency }
        return unconfirmed.mayBeginParts(of: urgency, besides: promised, limit: configuration.deliveryBudget)
    }

    /// The channel that may begin an entry in parts next.
    mutating func nextForParts() -> ChannelID? {
        guard let lines = roomLines, !lines.parts.isEmpty else { return nil }
        let able = Urgency.allCases.filter(mayBeginParts)
        guard let next = roomLines?.parts.next(of: able) else { return nil }
        roomLines?.parts.ended(next)
        if roomLines?.isUnused == true { roomLines = nil }
        modify(next) { $0.standsForParts = false }
        return next
    }

    /// A channel's read was answered, or is not waited for any more.
    mutating func readEnded(_ channel: ChannelID) {
        reads.ended(channel)
        roomLines?.ended(channel)
    }

    /// A channel has another urgency now: it counts there, and stands in that line.
    mutating func roomChanged(_ channel: ChannelID, now: NIODeadline) {
        guard roomLines != nil else { return }
        let stood = modify(channel) { state in
            defer { (state.standsToBegin, state.standsToGoOn, state.standsForParts) = (false, false, false) }
            return state.standsToBegin || state.standsToGoOn || state.standsForParts
        }
        // Looked for only where it is: the lines may be long.
        if stood == true {
            roomLines?.remove(channel)
            if roomLines?.isUnused == true { roomLines = nil }
        }
        guard case .up = phase, channels[channel] != nil else { return }
        advance(channel, now: now)
        beginWaitingParts(now: now)
    }
}

/// What was sent and is not confirmed.
struct Unconfirmed: Equatable, Sendable {
    /// The cost of all of it.
    private(set) var bytes = 0
    /// That of entries in parts.
    private(set) var partsBytes: UInt32 = 0
    /// Their number.
    private(set) var parts: UInt32 = 0

    /// Every channel of every session has these: no window lets so much be unconfirmed that the small numbers wrap.
    mutating func add(_ cost: UInt32, isInParts: Bool) {
        bytes += Int(cost)
        guard isInParts else { return }
        partsBytes &+= cost
        parts &+= 1
    }

    mutating func remove(_ cost: UInt32, isInParts: Bool) {
        bytes -= Int(cost)
        guard isInParts else { return }
        partsBytes &-= cost
        parts &-= 1
    }
}

/// What was sent and is not confirmed in all of a session's channels, by their urgency.
struct UnconfirmedSum: Sendable {
    struct Share: Sendable {
        /// The cost of what is not in parts.
        var bytes = 0
        var partsBytes = 0
        var parts = 0
    }

    private var control = Share()
    private var chat = Share()
    private var bulk = Share()

    subscript(urgency: Urgency) -> Share {
        get {
            switch urgency {
            case .control: control
            case .chat: chat
            case .bulk: bulk
            }
        }
        set {
            switch urgency {
            case .control: control = newValue
            case .chat: chat = newValue
            case .bulk: bulk = newValue
            }
        }
    }

    /// What is not in parts.
    var total: Int { control.bytes + chat.bytes + bulk.bytes }

    /// How much of a session's limit an urgency has.
    static func share(of urgency: Urgency, in limit: Int) -> Int { max(1, urgency == .chat ? limit / 2 : limit / 4) }

    /// Up to how much of a share channels go on that have something unconfirmed.
    static func goingOn(_ share: Int) -> Int { share - share / 4 }

    /// Entries in parts that may be unconfirmed whatever they weigh: together as many as may be under way on a link, so that no
    /// urgency waits for another's.
    private static func freeParts(of urgency: Urgency) -> Int {
        urgency == .chat ? FrameLimits.maximumPayloadsInParts / 2 : FrameLimits.maximumPayloadsInParts / 4
    }

    /// Whether another entry in parts may begin: a few may always, and more while they weigh less than the share.
    /// - Parameter promised: how many others have the word that they may begin, and did not yet. What these weigh is not known.
    func mayBeginParts(of urgency: Urgency, besides promised: Int, limit: Int) -> Bool {
        let share = self[urgency]
        return share.parts + promised < Self.freeParts(of: urgency)
            || promised == 0 && share.partsBytes < Self.share(of: urgency, in: limit)
    }

    mutating func add(_ own: Unconfirmed, to urgency: Urgency, sign: Int = 1) {
        self[urgency].bytes += sign * (own.bytes - Int(own.partsBytes))
        self[urgency].partsBytes += sign * Int(own.partsBytes)
        self[urgency].parts += sign * Int(own.parts)
    }
}

extension ServerChannel {
    var unconfirmed: Unconfirmed { sender?.unconfirmed ?? Unconfirmed() }

    /// Whether it would send something that counts.
    fileprivate func wantsRoom(window: Int) -> Bool {
        mayReceive && sender?.payload == nil && unconfirmed.bytes < window
            && (sender?.notice != nil || wantsRead(window: window))
    }
}
