import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

/// A session with logs of its own, and a device that confirms what it is told to.
private struct Serving {
    static let budget = 1 << 20
    static let payload = 10_000
    /// What an entry costs.
    static let cost = payload + 128

    var session: ServerSession
    var now = Fixture.start
    let channels: [ChannelID]
    let entries: Offset
    /// The length of every payload of a channel, where it is another.
    let lengths: [ChannelID: Int]
    /// Channels whose payloads stop behind their first frame.
    var stuck: Set<ChannelID>
    var lanes: [LaneID: ChannelID] = [:]
    var delivered: [ChannelID: Offset] = [:]
    var confirmed: [ChannelID: Offset] = [:]
    /// Channels in the order of their entries.
    var order: [ChannelID] = []
    var behind: Set<ChannelID> = []
    /// The most that was ever unconfirmed of what is in one frame, by urgency.
    var most: [Urgency: Int] = [:]
    private var urgencies: [ChannelID: Urgency] = [:]
    private var nextLane: UInt64 = 1
    private var ownLanes: [ChannelID: LaneID] = [:]
    private var payloadReads: [PayloadRead] = []

    init(
        rooms: Int, entries: Offset, urgencies: [Int: Urgency] = [:], lengths: [Int: Int] = [:], stuck: Set<Int> = [],
        budget: Int = Serving.budget
    ) {
        var configuration = ServerSessionConfiguration()
        configuration.deliveryBudget = budget
        session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        let channels = (0..<rooms).map { ChannelID.room(Fixture.name("r\($0)")) }
        self.channels = channels
        self.entries = entries
        self.lengths = Dictionary(uniqueKeysWithValues: lengths.map { (channels[$0.key], $0.value) })
        self.stuck = Set(stuck.map { channels[$0] })
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
            channels: channels.map { Fixture.channel($0) }, ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        for (room, urgency) in urgencies.sorted(by: { $0.key < $1.key }) { say(urgency, of: room) }
        for channel in channels {
            session.logAdvanced(channel, head: Position(epoch: Fixture.epoch, offset: entries), now: now)
        }
        work()
    }

    mutating func say(_ urgency: Urgency, of room: Int) {
        urgencies[channels[room]] = urgency
        let said = ChannelUrgency(channel: channels[room], urgency: urgency)
        session.received(.urgency(said), lane: .control, early: false, now: now)
        work()
    }

    func length(_ channel: ChannelID) -> Int { lengths[channel] ?? Self.payload }

    func unconfirmed(_ channel: ChannelID) -> Int {
        (length(channel) + 128) * Int((delivered[channel] ?? 0) - (confirmed[channel] ?? 0))
    }

    func unconfirmed(_ urgency: Urgency, inParts: Bool = false) -> Int {
        channels.filter {
            urgencies[$0] ?? .chat == urgency && (length($0) > FrameLimits.maximumPayload) == inParts
        }.reduce(0) { $0 + unconfirmed($1) }
    }

    /// Channels with an entry that is not confirmed.
    var open: [Int] { channels.indices.filter { unconfirmed(channels[$0]) > 0 } }

    mutating func work() {
        while let action = session.nextAction() {
            switch action {
            case .read(let channel, let after, _, let bytes):
                session.pageRead(channel, page: page(of: channel, after: after, bytes: bytes), now: now)
            case .readPayload(let read) where stuck.contains(read.channel): payloadReads.append(read)
            case .readPayload(let read): answer(read)
            case .awaitDelivery(let lane, let question):
                session.laneDelivered(lane, question: question, now: now)
            case .send(.lane(let header), let lane): lanes[lane] = header.channel
            case .send(.deliver(let deliver), let lane):
                guard let channel = lanes[lane] else { continue }
                #expect(deliver.entry.offset == (delivered[channel] ?? 0) + 1)
                delivered[channel] = deliver.entry.offset
                order.append(channel)
                for urgency in Urgency.allCases { most[urgency] = max(most[urgency] ?? 0, unconfirmed(urgency)) }
            case .send(.behind(let lag), _):
                if lag.isBehind { behind.insert(lag.channel) } else { behind.remove(lag.channel) }
            case .close(let close): Issue.record("closed: \(close)")
            default: break
            }
        }
    }

    private func page(of channel: ChannelID, after: Offset, bytes: Int) -> SessionPage {
        let length = length(channel)
        let count = length > FrameLimits.maximumPayload ? 1 : Offset(max(1, bytes / length))
        let offsets = Array((after + 1)...max(after + 1, min(after + count, entries)))
        let items = offsets.map { offset in
            var entry = Fixture.entry(offset, after: offset - 1, bytes: min(length, FrameLimits.maximumPayload))
            entry.following = UInt64(length - entry.payload.readableBytes)
            return SessionPage.Item.entry(entry)
        }
        return SessionPage(epoch: Fixture.epoch, items: items, head: entries, first: 0)
    }

    private mutating func answer(_ read: PayloadRead) {
        let left = length(read.channel) - Int(read.from)
        let bytes = ByteBuffer(repeating: 1, count: min(read.maximumBytes, left))
        session.payloadRead(read, bytes: bytes, now: now)
    }

    /// The rest of what is stuck.
    mutating func finish(_ room: Int) {
        stuck.remove(channels[room])
        let reads = payloadReads.filter { $0.channel == channels[room] }
        for read in reads { answer(read) }
        work()
    }

    mutating func confirm(_ channel: ChannelID) {
        guard let offset = delivered[channel], offset > confirmed[channel] ?? 0 else { return }
        let lane = ownLanes[channel] ?? LaneID(rawValue: nextLane)
        if ownLanes.updateValue(lane, forKey: channel) == nil {
            nextLane += 1
            let header = LaneHeader(channel: channel, epoch: Fixture.epoch)
            session.received(.lane(header), lane: lane, early: false, now: now)
        }
        confirmed[channel] = offset
        session.received(.acknowledge(Acknowledge(offset: offset)), lane: lane, early: false, now: now)
        work()
    }

    func isDone(_ channel: ChannelID) -> Bool { delivered[channel] == entries }
    var isDone: Bool { channels.allSatisfy(isDone) }
}

/// What is unconfirmed in all channels together.
@Suite("A session's delivery budget")
struct DeliveryBudgetTests {
    private static let chat = Serving.budget / 2
    private static let bulk = Serving.budget / 4

    @Test("What an app does not confirm stays within the share, and all of it comes as it confirms")
    func nothingConfirmed() {
        var server = Serving(rooms: 100, entries: 30)
        // Some fill their windows, and a quarter is for the first entries of others. A window of each would be 50 times as much.
        #expect(server.delivered.count > 14)
        #expect(server.unconfirmed(.chat) >= Self.chat)
        server.now = server.now + .seconds(5)
        server.session.deadlineReached(now: server.now)
        server.work()
        #expect(server.behind.count == 100)
        // In another order than it came, the last first.
        for _ in 0..<1_000 where !server.isDone {
            for channel in server.channels.reversed() { server.confirm(channel) }
        }
        #expect(server.isDone && server.order.count == 3_000)
        #expect(server.most[.chat] ?? 0 < Self.chat + Serving.cost)
        #expect(server.behind.isEmpty)
    }

    @Test("Channels that the app confirms go on, whatever others it leaves")
    func someUnread() {
        var server = Serving(rooms: 24, entries: 40)
        let read = Array(server.channels.suffix(12))
        for _ in 0..<500 where !read.allSatisfy(server.isDone) { for channel in read { server.confirm(channel) } }
        #expect(read.allSatisfy(server.isDone))
        #expect(server.most[.chat] ?? 0 < Self.chat + Serving.cost)
        // And those others, one by one.
        for _ in 0..<60 { server.confirm(server.channels[0]) }
        #expect(server.isDone(server.channels[0]))
    }

    @Test("With more channels than there is room for entries they take turns, in the order in which they asked")
    func moreChannelsThanRoom() {
        var server = Serving(rooms: 300, entries: 3)
        #expect(server.delivered.count < 60)
        // The app confirms what it got, the first first.
        while let channel = server.order.first(where: { server.unconfirmed($0) > 0 }) { server.confirm(channel) }
        #expect(server.isDone && server.most[.chat] ?? 0 < Self.chat + Serving.cost)
        // Nobody has a second turn while others wait for their first.
        let lastFirst = server.channels.compactMap { server.order.firstIndex(of: $0) }.max() ?? 0
        var seen: [ChannelID: Int] = [:]
        for channel in server.order.prefix(lastFirst) { seen[channel, default: 0] += 1 }
        let again = seen.values.count { $0 > 1 }
        #expect(again <= 14, "\(again)")
    }

    @Test("What is unconfirmed in one urgency keeps no other from its share")
    func urgency() {
        var urgencies: [Int: Urgency] = [119: .control]
        for room in 0..<60 { urgencies[room] = .bulk }
        var server = Serving(rooms: 120, entries: 30, urgencies: urgencies)
        for (urgency, share) in [(Urgency.bulk, Self.bulk), (.chat, Self.chat)] {
            #expect(server.unconfirmed(urgency) >= share)
            #expect(server.most[urgency] ?? 0 < share + Serving.cost)
        }
        // Up to three quarters of its own.
        #expect(server.unconfirmed(.control) >= Self.bulk / 4 * 3)
        // Bulk goes on beside chat that nobody confirms, and chat beside such bulk.
        for _ in 0..<2_000 where !server.channels[..<60].allSatisfy(server.isDone) {
            for channel in server.channels.prefix(60) { server.confirm(channel) }
        }
        #expect(server.channels[..<60].allSatisfy(server.isDone))
        var other = Serving(rooms: 120, entries: 30, urgencies: urgencies)
        for _ in 0..<2_000 where !other.channels[60...].allSatisfy(other.isDone) {
            for channel in other.channels.suffix(60) { other.confirm(channel) }
        }
        #expect(other.channels[60...].allSatisfy(other.isDone))
        #expect(other.most[.chat] ?? 0 < Self.chat + Serving.cost)
    }

    @Test("A channel that waits goes on where it is when it becomes more urgent, and what it had counts there")
    func urgencyChanged() throws {
        var server = Serving(rooms: 100, entries: 30)
        let waiting = try #require(server.channels.lastIndex { server.delivered[$0] == nil })
        server.say(.control, of: waiting)
        #expect(server.unconfirmed(server.channels[waiting]) >= Self.bulk / 4 * 3)
        // What one takes along is room for others.
        let before = server.order.count
        server.say(.bulk, of: 0)
        #expect(server.order.count > before)
        for _ in 0..<1_000 where !server.isDone {
            for channel in server.channels.reversed() { server.confirm(channel) }
        }
        #expect(server.isDone)
    }

    @Test("A channel whose log is another one now gives its room back")
    func newLog() {
        var server = Serving(rooms: 100, entries: 30)
        let before = server.order.count
        for channel in server.channels.prefix(20) {
            let fresh = SessionChannel(
                channel: channel, head: Position(epoch: 99, offset: 0), first: 0, after: 0, upTo: nil, cursor: nil)
            server.session.channelChanged(fresh, now: server.now)
            server.work()
        }
        #expect(server.order.count > before)
    }

    @Test("A limit that no entry fits into lets one after the other through", arguments: [1, 20_000])
    func tiny(budget: Int) {
        var server = Serving(rooms: 5, entries: 4, lengths: [0: 100_000, 1: 100_000], budget: budget)
        #expect(!server.open.isEmpty)
        for _ in 0..<200 where !server.isDone {
            guard let next = server.open.last else { break }
            server.confirm(server.channels[next])
        }
        #expect(server.isDone)
        #expect(server.most[.chat] ?? 0 < max(1, budget / 2) + Serving.cost)
    }
}

@Suite("A session's delivery budget, and what is larger than it")
struct LargeDeliveryBudgetTests {
    private static let large = 3 << 20

    @Test("An entry that is larger than the limit and under way holds up no message")
    func passed() {
        var server = Serving(rooms: 20, entries: 30, lengths: [0: Self.large], stuck: [0])
        #expect(server.delivered[server.channels[0]] == 1)
        for _ in 0..<100 { for channel in server.channels.dropFirst() { server.confirm(channel) } }
        #expect(server.channels.dropFirst().allSatisfy(server.isDone))
        server.finish(0)
        for _ in 0..<30 { server.confirm(server.channels[0]) }
        #expect(server.isDone)
    }

    @Test("Of entries that are larger than a share two may be unconfirmed in chat, one in bulk and in control")
    func fewLarge() {
        var urgencies: [Int: Urgency] = [:]
        var lengths: [Int: Int] = [:]
        for room in 0..<12 {
            urgencies[room] = room < 4 ? .bulk : room < 8 ? .chat : .control
            lengths[room] = Self.large
        }
        var server = Serving(rooms: 14, entries: 3, urgencies: urgencies, lengths: lengths, stuck: [0])
        // The app confirms none of them. One is stuck, so that it has its place on the link for long.
        #expect(Set(server.open).subtracting([12, 13]) == [0, 4, 5, 8])
        server.finish(0)
        #expect(Set(server.open).subtracting([12, 13]) == [0, 4, 5, 8])
        // Each waits for its like, and in turn.
        server.confirm(server.channels[5])
        #expect(Set(server.open).subtracting([12, 13]) == [0, 4, 6, 8])
        server.confirm(server.channels[0])
        #expect(Set(server.open).subtracting([12, 13]) == [1, 4, 6, 8])
        for _ in 0..<100 { for room in server.open { server.confirm(server.channels[room]) } }
        #expect(server.isDone)
    }

    @Test("Pictures are unconfirmed up to a share, and one more")
    func pictures() {
        let lengths = Dictionary(uniqueKeysWithValues: (0..<60).map { ($0, 40_000) })
        var server = Serving(rooms: 60, entries: 3, lengths: lengths)
        let share = Serving.budget / 2
        #expect(server.unconfirmed(.chat, inParts: true) >= share)
        var most = server.unconfirmed(.chat, inParts: true)
        for _ in 0..<1_000 where !server.isDone {
            most = max(most, server.unconfirmed(.chat, inParts: true))
            guard let next = server.open.last else { break }
            server.confirm(server.channels[next])
        }
        #expect(server.isDone && most < share + 40_128)
    }

    @Test("A large entry that is given up gives its room back, and waits as others do")
    func givenUp() {
        let lengths = Dictionary(uniqueKeysWithValues: (0..<3).map { ($0, Self.large) })
        var server = Serving(rooms: 3, entries: 1, lengths: lengths, stuck: [0])
        #expect(server.open == [0, 1])
        server.now = server.now + .seconds(5)
        server.session.deadlineReached(now: server.now)
        server.work()
        #expect(server.behind.contains(server.channels[2]))
        // Another session of the device confirmed it meanwhile.
        server.confirm(server.channels[0])
        #expect(server.open == [1, 2] && server.behind.isEmpty)
    }
}
