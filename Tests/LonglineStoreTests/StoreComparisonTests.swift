import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// The store on disk beside the one in memory, which keeps nothing back: what the first remembers between transactions, writes late or
/// reads from its cache must not show, whatever is done in whatever order.
@Suite struct StoreComparisonTests {
    @Test(
        "both stores answer the same to whatever is done, and the one on disk once more when it is opened again",
        arguments: 1...4 as ClosedRange<UInt64>)
    func bothAnswerTheSame(_ seed: UInt64) async throws {
        let folder = try TemporaryFolder()
        let clock = TestClock()
        var settings = configuration(folder.path)
        settings.limits.headBytes = 100
        settings.limits.pageEntries = 7
        settings.limits.roomsPerUser = 2
        settings.limits.editsPerMessage = 3
        settings.limits.unreadEntries = 20
        settings.tailCacheBytes = 20_000
        let disk = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: seed))
        var random = SeededRandom(seed: seed)
        // The store on disk draws its identity before any epoch.
        for _ in 0..<2 { _ = random.next() }
        let memory = InMemoryStore(limits: settings.limits, clock: clock.read, random: random)
        var deeds = Deeds(random: SeededRandom(seed: ~seed))
        for step in 1...300 {
            switch deeds.next(clock) {
            case .append(let batch):
                let outcomes = await disk.append(batch)
                try #require(await memory.append(batch) == outcomes, "step \(step)")
                deeds.learn(batch, outcomes)
            case .other(let what, let perform):
                let answer = try await perform(disk)
                try #require(try await perform(memory) == answer, "step \(step): \(what)")
            }
            guard step.isMultiple(of: 20) else { continue }
            let onDisk = try await Picture.of(disk, now: clock.now)
            try #require(try await Picture.of(memory, now: clock.now) == onDisk, "step \(step)")
        }
        let last = try await Picture.of(disk, now: clock.now)
        try await disk.close()
        let again = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: seed + 100))
        #expect(!again.wasRestored)
        #expect(try await Picture.of(again, now: clock.now) == last)
        try await again.close()
    }
}

private let names = ["alice", "bob", "carol"]
private let devices = ["phone", "tablet"]
private let rooms = ["hall", "den", "roof"]
private let news = ChannelID.all(must { try BroadcastID("news") })

/// All that a store tells.
private struct Picture: Equatable {
    var logs: [String: [LogItem]] = [:]
    var pages: [String: [LogItem]] = [:]
    var texts: [String: [String]] = [:]
    var lists: [String: ConversationList] = [:]
    var entitlements: [String: [Entitlement]] = [:]
    var members: [String: MemberList] = [:]
    var channels: [String: [Entitlement]] = [:]
    var cursors: [String: CursorRecord] = [:]
    var generations: [String: RevocationGenerations] = [:]
    var summaries: [ChannelSummary] = []

    static func of(_ store: AnyStore, now: UInt64) async throws -> Picture {
        var picture = Picture()
        for name in names {
            picture.lists[name] = try await store.conversations(
                of: user(name), in: tenant, after: nil, limit: 50, now: now)
            picture.entitlements[name] = try await store.entitlements(of: user(name), in: tenant)
            for kind in devices {
                let key = device(name, kind)
                picture.channels["\(name)/\(kind)"] = try await store.channels(of: key)
                picture.cursors["\(name)/\(kind)"] = try await store.cursors(of: key)
                picture.generations["\(name)/\(kind)"] = try await store.generations(of: key)
            }
        }
        for name in rooms {
            picture.members[name] = try await store.members(
                of: room(name), in: tenant, for: nil, after: nil, limit: 50)
        }
        let all = ChannelKey(tenant: tenant, channel: news)
        for key in names.map(inbox) + rooms.map(roomKey) + [all] {
            guard try await store.head(of: key) != nil else { continue }
            try await picture.add(key, of: store, now: now)
        }
        picture.summaries = try await store.channels(after: 0, limit: 100).channels
        return picture
    }

    private mutating func add(_ key: ChannelKey, of store: AnyStore, now: UInt64) async throws {
        let name = key.channel.description
        let log = try await store.all(key, pageBytes: 300, now: now)
        let range = LogRange(after: 0, upTo: nil, direction: .older, maximumEntries: 5, maximumBytes: 400)
        let page = try await store.page(key, range, now: now)
        logs[name] = log
        pages[name] = page.items
        var whole: [String] = []
        for entry in log.compactMap(\.entry) where entry.following > 0 {
            var bytes = entry.payload
            while let more = try await store.payload(
                of: entry.offset, in: key, from: UInt64(bytes.readableBytes), maximumBytes: 1 << 20)
            {
                bytes.writeImmutableBuffer(more)
            }
            whole.append(String(buffer: bytes))
        }
        texts[name] = whole
    }
}

/// Something that is done to both stores.
private enum Deed {
    case append([AppendRequest])
    /// With its name, and how a store answers.
    case other(String, (AnyStore) async throws -> String)
}

/// Draws what is done.
private struct Deeds {
    /// What was said: its place, and who is on the other side in an inbox.
    struct Said {
        let channel: ChannelID
        let position: Position
        let peer: String?
    }

    var random: SeededRandom
    private var lastIDs: [String: PublishID] = [:]
    private var chains: [String: PublishID] = [:]
    private var said: [Said] = []
    private var sent: [AppendRequest] = []

    init(random: SeededRandom) { self.random = random }

    private mutating func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    private mutating func pick(_ all: [String]) -> String { all[pick(all.count)] }

    mutating func next(_ clock: TestClock) -> Deed {
        switch pick(32) {
        case 0..<12: return publish()
        case 12..<17: return remark()
        case 17..<19: return sendAgain()
        case 19..<23: return changeRoom()
        case 23: return change()
        case 24..<26: return read()
        case 26: return confirm()
        case 27: return trim()
        case 28: return admit()
        case 29..<31: return pass(clock)
        default: return random.happens(0.5) ? sweep() : erase()
        }
    }

    // MARK: Publishing

    private mutating func publish() -> Deed {
        var batch: [AppendRequest] = []
        for _ in 0...pick(5) {
            let name = pick(names)
            let channel: ChannelID =
                switch pick(10) {
                case 0..<5: .user(user(name))
                case 5..<9: .room(room(pick(rooms)))
                default: news
                }
            var recipient: String?
            if case .user = channel, random.happens(0.8) { recipient = pick(names) }
            let asks = recipient != nil && random.happens(0.15)
            batch.append(made(asks ? .request : .message, by: name, in: channel, to: recipient))
        }
        return .append(batch)
    }

    private mutating func sendAgain() -> Deed {
        guard !sent.isEmpty else { return publish() }
        let index = pick(sent.count)
        return .append([sent[index]])
    }

    private mutating func anySaid() -> Said? {
        guard !said.isEmpty else { return nil }
        let index = pick(said.count)
        return said[index]
    }

    /// Something about what was said, by whoever may or may not.
    private mutating func remark() -> Deed {
        guard let named = anySaid() else { return publish() }
        var name = pick(names)
        if case .user(let owner) = named.channel { name = owner.description }
        let kinds: [PublishKind] = [
            .edit(named.position), .retract(named.position), .react(named.position), .reply(named.position),
        ]
        return .append([made(kinds[pick(kinds.count)], by: name, in: named.channel, to: named.peer)])
    }

    private mutating func made(
        _ kind: PublishKind, by name: String, in channel: ChannelID, to recipient: String?
    ) -> AppendRequest {
        let kindOfDevice = pick(devices)
        let outbox = "\(name)/\(kindOfDevice)"
        let id = lastIDs[outbox, default: 0] + 1
        lastIDs[outbox] = id
        let chain = "\(outbox) \(channel)"
        let sizes = [5, 5, 5, 30, 250, random.happens(0.1) ? 70_000 : 90]
        let text = String(repeating: "x", count: sizes[pick(sizes.count)])
        let lifetime: UInt64 = random.happens(0.2) ? UInt64(1 + pick(3_000)) : 0
        var drawn = request(
            name, to: channel, recipient: recipient, id: id, after: chains[chain, default: 0], device: kindOfDevice,
            timeToLive: lifetime, "\(id) \(text)")
        drawn.publish.kind = kind
        chains[chain] = id
        return drawn
    }

    /// What became of publishes, for those that come.
    mutating func learn(_ batch: [AppendRequest], _ outcomes: [AppendOutcome]) {
        for (request, outcome) in zip(batch, outcomes) {
            let name = request.device.user.description
            switch outcome {
            case .entered(let published, _, _, let copy):
                let recipient = request.publish.recipient?.description
                let peer = recipient == name ? nil : recipient
                said.append(Said(channel: request.channel, position: published.position, peer: peer))
                if let copy { said.append(Said(channel: copy.channel, position: copy.position, peer: name)) }
            case .duplicate: break
            case .refused(let refused):
                guard refused.code == .outOfOrder else { continue }
                chains["\(name)/\(request.device.device) \(request.channel)"] = refused.lastID
            }
        }
        said = Array(said.suffix(60))
        sent = Array((sent + batch).suffix(60))
    }

    // MARK: Rooms, conversations and devices

    private mutating func changeRoom() -> Deed {
        let (name, key, other) = (room(pick(rooms)), device(pick(names)), user(pick(names)))
        let change: RoomChange =
            switch pick(16) {
            case 0..<6: .join(create: true)
            case 6, 7: .leave
            case 8: .act(.add(other))
            case 9: .act(.remove(other))
            case 10: .act(.setRole(random.happens(0.7) ? RoomRole.owner : .member, of: other))
            case 11: .act(.setJoining(random.happens(0.7) ? RoomJoining.anyone : .byOwners))
            case 12: .act(.setPublishing(random.happens(0.7) ? RoomPublishing.members : .owners))
            case 13: .act(.delete)
            case 14: .appoint(random.happens(0.5) ? RoomRole.owner : nil)
            default: .dissolve
            }
        return .other("\(change)") { store in
            let outcome = try await store.change(name, change, by: key)
            return "\(outcome)"
        }
    }

    private mutating func change() -> Deed {
        let (owner, other) = (user(pick(names)), user(pick(names)))
        let conversation: ChannelID = random.happens(0.7) ? .user(other) : .room(room(pick(rooms)))
        let setting: ConversationSetting =
            random.happens(0.5) ? .block(random.happens(0.4)) : .mute(until: random.happens(0.5) ? 0 : 1_000)
        return .other("\(setting) of \(conversation)") { store in
            let settings = try await store.set(setting, of: conversation, for: owner, in: tenant)
            return settings.map { "\($0)" } ?? "none"
        }
    }

    private mutating func read() -> Deed {
        guard let place = anySaid() else { return publish() }
        var (reader, conversation) = (user(pick(names)), place.channel)
        if case .user(let owner) = place.channel {
            reader = owner
            conversation = .user(place.peer.map { user($0) } ?? owner)
        }
        let mark = ReadMark(
            conversation: conversation, position: place.position, isPrivate: random.happens(0.2))
        let note = ReadNote(tenant: tenant, user: reader, mark: mark)
        return .other("\(note)") { store in
            let outcomes = try await store.markRead([note])
            return "\(outcomes)"
        }
    }

    private mutating func confirm() -> Deed {
        guard let place = anySaid() else { return publish() }
        var name = pick(names)
        if case .user(let owner) = place.channel { name = owner.description }
        let (key, cursor) = (
            device(name, pick(devices)), ChannelPosition(channel: place.channel, position: place.position)
        )
        return .other("\(cursor)") { store in
            try await store.move(key, to: [cursor])
            return ""
        }
    }

    private mutating func admit() -> Deed {
        let (key, number) = (device(pick(names), pick(devices)), UInt64(pick(9)))
        return .other("admit") { store in
            let admission = try await store.admit(key, producer: producer, connectNumber: number)
            return "\(admission)"
        }
    }

    // MARK: Time

    private mutating func pass(_ clock: TestClock) -> Deed {
        let day: UInt64 = 86_400_000
        switch pick(12) {
        case 0: clock.advance(200 * day)
        case 1: clock.set(clock.now - 2 * day)
        case 2: clock.advance(3 * day)
        default: clock.advance(UInt64(pick(2_000)))
        }
        return .other("time") { _ in "" }
    }

    private mutating func trim() -> Deed {
        let key = random.happens(0.5) ? inbox(pick(names)) : roomKey(pick(rooms))
        let rules = [
            Retention(entries: pick(30)), Retention(bytes: pick(3_000)), Retention(age: UInt64(1 + pick(90_000_000))),
        ]
        let rule = rules[pick(rules.count)]
        return .other("\(rule) of \(key.channel)") { store in
            let report = try await store.trim(key, keep: rule)
            return "\(report)"
        }
    }

    private func sweep() -> Deed {
        .other("sweep") { store in
            let report = try await store.sweep()
            return "\(report.devices) devices, \(report.channels) channels"
        }
    }

    private mutating func erase() -> Deed {
        let name = user(pick(names))
        return .other("erase") { store in
            try await store.requestErasure(of: name, in: tenant)
            var left: [ChannelPosition] = []
            while true {
                let step = try await store.erase(user: name, in: tenant)
                left += step.left
                if step.isDone { return "\(left)" }
            }
        }
    }
}
