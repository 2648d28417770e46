import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

extension TestDevice {
    fileprivate func receipt() async throws -> Receipt {
        try await next { if case .receipt(let receipt) = $0 { receipt } else { nil } }
    }

    fileprivate func conversations(_ number: UInt64, after: ByteBuffer = ByteBuffer(), limit: UInt64 = 50) async throws
        -> ConversationsPage
    {
        let request = ConversationsRequest(request: number, after: after, limit: limit)
        try await send([(.conversations(request), .control)])
        return try await next { frame in
            if case .conversationsPage(let page) = frame, page.request == number { page } else { nil }
        }
    }

    fileprivate func read(_ conversation: ChannelID, _ position: Position, isPrivate: Bool = false) async throws {
        let mark = ReadMark(conversation: conversation, position: position, isPrivate: isPrivate)
        try await send([(.read(mark), .control)])
    }
}

extension PublishOutcome {
    fileprivate var position: Position {
        get throws {
            guard case .published(let published) = self else { throw CancellationError() }
            return published.position
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct ConversationTests {
    @Test("a sender learns that a message arrived, and that it was read; the reader's devices agree")
    func receipts() async throws {
        try await withServer { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob", loop: 1)
            let tablet = try await server.connected("bob", "tablet")
            let sent = try await alice.message("hello", to: bob).position
            let deliver = try await phone.delivered(.user(bob))
            let epoch = try #require(
                try await server.store.head(
                    of: ChannelKey(
                        tenant: TokenIssuer.tenant, channel: .user(bob)))
            ).position.epoch
            try await phone.acknowledge(.user(bob), epoch: epoch, offset: deliver.entry.offset)
            #expect(
                try await alice.receipt()
                    == Receipt(conversation: .user(bob), user: bob, kind: .delivered, position: sent))
            let place = Position(epoch: epoch, offset: deliver.entry.offset)
            try await phone.read(.user(ann), place)
            #expect(
                try await alice.receipt() == Receipt(conversation: .user(bob), user: bob, kind: .read, position: sent))
            for device in [phone, tablet] {
                #expect(
                    try await device.receipt()
                        == Receipt(conversation: .user(ann), user: bob, kind: .read, position: place))
            }
            // A device's place is written a moment after it was told.
            var number: UInt64 = 1
            while try await alice.conversations(number).items.map(\.peerDelivered) != [sent.offset] { number += 1 }
            #expect(try await alice.conversations(number + 1).items.map(\.peerRead) == [sent.offset])
        }
    }

    @Test("a sender learns that a message arrived of which only the next connect says so")
    func acknowledgementThatWasLost() async throws {
        try await withServer { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob", loop: 1)
            let first = try await alice.message("one", to: bob).position
            let second = try await alice.message("two", to: bob).position
            var deliver = try await phone.delivered(.user(bob))
            deliver = try await phone.delivered(.user(bob))
            let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))
            let epoch = try #require(try await server.store.head(of: inbox)).position.epoch
            let place = ChannelPosition(
                channel: .user(bob), position: Position(epoch: epoch, offset: deliver.entry.offset))
            // In early data, which may be a replay, nobody is told.
            try await phone.drop()
            let early = try await server.device("bob", early: true)
            early.producer = phone.producer
            early.connectNumber = 2
            let proof = try #require(phone.ticket).ticket
            _ = try await early.connect(credential: .ticket(proof), cursors: [place], early: true)
            try await early.completeHandshake()
            let receipt = try await alice.receipt()
            #expect(receipt == Receipt(conversation: .user(bob), user: bob, kind: .delivered, position: second))
            #expect(first.offset < second.offset)
            // Once.
            try await early.drop()
            let again = try await server.device("bob")
            again.producer = phone.producer
            again.connectNumber = 3
            _ = try await again.connect(cursors: [place])
            let third = try await alice.message("three", to: bob).position
            let last = try await again.delivered(.user(bob))
            try await again.acknowledge(.user(bob), epoch: epoch, offset: last.entry.offset)
            #expect(try await alice.receipt().position == third)
        }
    }

    @Test("in a room its members learn what was read; what is private only the reader's devices do")
    func rooms() async throws {
        try await withServer { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob", loop: 1)
            let tablet = try await server.connected("bob", "tablet")
            for device in [alice, phone] { _ = try await device.request(hall, number: 1) }
            let first = try await alice.publish("one", to: .room(hall)).position
            let second = try await alice.publish("two", to: .room(hall)).position
            try await phone.read(.room(hall), first, isPrivate: true)
            let own = Receipt(conversation: .room(hall), user: bob, kind: .read, position: first)
            #expect(try await tablet.receipt() == own)
            try await tablet.read(.room(hall), second)
            var told = own
            told.position = second
            // The private one never came to alice.
            #expect(try await alice.receipt() == told)
        }
    }

    @Test("settings are told to the user's other devices, and who is blocked is not told")
    func settings() async throws {
        try await withServer { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob", loop: 1)
            let tablet = try await server.connected("bob", "tablet")
            try await alice.message("before", to: bob)
            #expect(try await phone.text(.user(bob)) == "before")
            let blocked = ConversationSettings(isBlocked: true)
            #expect(try await phone.change(1, .user(ann), .block(true)).settings == blocked)
            #expect(
                try await tablet.settings(0)
                    == ConversationState(request: 0, refusal: nil, conversation: .user(ann), settings: blocked))
            // Entered as ever, and nothing arrives.
            _ = try await alice.message("during", to: bob).position
            #expect(
                try await phone.message("to one whom I block", to: ann)
                    == .refused(
                        Refused(id: 1, code: .blocked)))
            #expect(try await tablet.conversations(1).items.map(\.settings) == [blocked])
            #expect(try await phone.change(2, .user(ann), .block(false)).settings == ConversationSettings())
            try await alice.message("after", to: bob)
            #expect(try await phone.text(.user(bob)) == "after")
            #expect(try await phone.change(3, .user(bob), .mute(until: 1)).refusal == .unknownChannel)
        }
    }

    @Test("what can't be asked is refused, and the session goes on")
    func refusals() async throws {
        var limits = ServerLimits()
        limits.conversationRequestBurst = 3
        limits.conversationRequestsPerSecond = 0.001
        try await withServer(limits: limits) { server in
            let alice = try await server.connected("ann")
            #expect(try await alice.conversations(1, limit: 0).refusal == .invalidRange)
            #expect(try await alice.conversations(2, limit: 51).refusal == .invalidRange)
            for bytes in ["x", "12345678", "12345678team/x", "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}"] {
                #expect(try await alice.conversations(3, after: ByteBuffer(string: bytes)).refusal == .invalidRange)
            }
            for conversation in [ChannelID.user(bob), .room(hall), .user(ann)] {
                try await alice.read(conversation, Position(epoch: 1, offset: 1))
            }
            #expect(try await alice.conversations(4).refusal == nil)
            #expect(try await alice.change(1, .user(bob), .mute(until: 9)).settings.mutedUntil == 9)
            #expect(try await alice.conversations(5).refusal == nil)
            let refused = try await alice.conversations(6)
            #expect(refused.refusal == .overloaded && refused.retryAfter == 1_000)
            #expect(try await alice.change(2, .user(bob), .mute(until: 9)).refusal == .overloaded)
            _ = try await alice.message("goes on", to: bob).position
        }
    }

    @Test("a request number that waits, and 0, close the link")
    func numbers() async throws {
        try await withServer { server in
            let alice = try await server.connected("ann")
            let change = ConversationChange(request: 0, conversation: .user(bob), setting: .block(true))
            try await alice.send([(.conversationSet(change), .control)])
            #expect(try await alice.closed() == .unexpectedFrame)
            let other = try await server.connected("bob")
            let request = Frame.conversations(ConversationsRequest(request: 7, after: ByteBuffer(), limit: 1))
            try await other.send([(request, .control), (request, .control)])
            #expect(try await other.closed() == .unexpectedFrame)
        }
    }

    @Test("places read beyond the rate are dropped, and nobody else's")
    func readRate() async throws {
        var limits = ServerLimits()
        (limits.readBurst, limits.readsPerSecond) = (2, 0.001)
        try await withServer(limits: limits) { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob")
            for text in ["one", "two"] { try await alice.message(text, to: bob) }
            var places: [Position] = []
            let epoch = try #require(
                try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob)))
            ).position.epoch
            for _ in 1...2 {
                places.append(Position(epoch: epoch, offset: try await phone.delivered(.user(bob)).entry.offset))
            }
            for number in 1...5 { try await phone.read(.user(try UserID("nobody-\(number)")), places[0]) }
            try await phone.read(.user(ann), places[0])
            while await server.runtime.statistics().readsDropped < 4 { await Task.yield() }
            // Another session of the same user has no rate of its own, another user has.
            let tablet = try await server.connected("bob", "tablet")
            try await tablet.read(.user(ann), places[1])
            while await server.runtime.statistics().readsDropped < 5 { await Task.yield() }
            try await phone.message("three", to: ann)
            let head = try #require(
                try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann))))
            try await alice.read(.user(bob), head.position)
            while try await alice.receipt().kind != .read {}
            #expect(await server.runtime.statistics().readsDropped == 5)
        }
    }

    @Test("many places are stored in several writes, between which publishes have their turn")
    func manyReads() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let count = 2 * ProgressQueue.writeSize + 1
            let notes = try (0..<count).map { number in
                ReadNote(
                    tenant: TokenIssuer.tenant, user: bob,
                    mark: ReadMark(
                        conversation: .user(try UserID("friend-\(number)")), position: Position(epoch: 1, offset: 1),
                        isPrivate: false))
            }
            server.runtime.loops[0].execute { loop in for note in notes { loop.put(note) } }
            while store.marks.withLock({ $0.reduce(0, +) }) < count { await Task.yield() }
            #expect(store.marks.withLock { $0 } == [ProgressQueue.writeSize, ProgressQueue.writeSize, 1])
        }
    }

    @Test("a store without room is asked once a turn, however many places wait")
    func manyReadsWithoutRoom() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let notes = try (0...2 * ProgressQueue.writeSize).map { number in
                ReadNote(
                    tenant: TokenIssuer.tenant, user: bob,
                    mark: ReadMark(
                        conversation: .user(try UserID("friend-\(number)")), position: Position(epoch: 1, offset: 1),
                        isPrivate: false))
            }
            store.set { $0.isFull = true }
            server.runtime.loops[0].execute { loop in for note in notes { loop.put(note) } }
            while store.marks.withLock({ $0.isEmpty }) { await Task.yield() }
            store.set { $0.isFull = false }
            while store.marks.withLock({ $0.last }) != 1 { await Task.yield() }
            let writes = store.marks.withLock { $0 }
            #expect(writes.suffix(3) == [ProgressQueue.writeSize, ProgressQueue.writeSize, 1])
            #expect(writes.dropLast(3).allSatisfy { $0 == ProgressQueue.writeSize } && writes.count > 3)
        }
    }

    @Test("a store without room keeps what was read for later")
    func fullStore() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let alice = try await server.connected("ann")
            let phone = try await server.connected("bob")
            try await alice.message("hello", to: bob)
            let deliver = try await phone.delivered(.user(bob))
            let head = try #require(
                try await store.head(
                    of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob)))
            ).position
            store.set { $0.isFull = true }
            try await phone.read(.user(ann), Position(epoch: head.epoch, offset: deliver.entry.offset))
            while await server.runtime.statistics().storeFailures == 0 { await Task.yield() }
            #expect(try await phone.change(1, .user(ann), .mute(until: 1)).refusal == .storageFull)
            store.set { $0.isFull = false }
            #expect(try await phone.receipt().kind == .read)
        }
    }
}
