import Foundation
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// One outbox that several clients have open, in one process here: each stands for one.
@Suite("Shared outbox", .timeLimit(.minutes(1)))
struct SharedOutboxTests {
    private func storage(
        _ directory: TemporaryFolder, takeOverAfter: Duration = .seconds(60), holdsLock: Bool = true
    ) throws -> SharedClientStorage {
        try SharedClientStorage(
            path: directory.file("shared.sqlite"), takeOverAfter: takeOverAfter, pollInterval: .milliseconds(10),
            holdsLock: holdsLock)
    }

    private func submission(_ text: String, _ number: UInt64) throws -> Submission {
        Submission(
            send: SendID(high: 1, low: number), destination: .user(try UserID("bob")), timeToLive: 0, queuedAt: 5,
            payload: ByteBuffer(string: text))
    }

    private func code(_ body: () async throws -> Void) async -> ClientError.Code? {
        do { try await body() } catch { return (error as? ClientError)?.code }
        return nil
    }

    // MARK: Ownership

    @Test("one owner at a time, and the next as soon as it gives up or dies", arguments: [true, false])
    func ownership(givesUp: Bool) async throws {
        let directory = try TemporaryFolder()
        var first: SharedClientStorage? = try storage(directory)
        let second = try storage(directory)
        #expect(try await first?.contend() == true)
        #expect(try await first?.contend() == true)
        #expect(try await second.contend() == false)
        #expect(await code { _ = try await second.load() } == .ownershipLost)
        #expect(await code { try await second.apply([.lastID(1)]) } == .ownershipLost)
        #expect(await code { try await second.erase() } == .ownershipLost)
        if givesUp {
            try await first?.close()
        } else {
            // As the system does when the process ends.
            first = nil
        }
        #expect(try await second.contend())
        try await second.apply([.lastID(7)])
        #expect(try await second.load().lastID == 7)
        try await second.close()
    }

    @Test(
        "an owner that does not answer loses, with or without a lock, and writes nothing more",
        arguments: [true, false])
    func sleeping(holdsLock: Bool) async throws {
        let directory = try TemporaryFolder()
        let first = try storage(directory, takeOverAfter: .milliseconds(100), holdsLock: holdsLock)
        let second = try storage(directory, takeOverAfter: .milliseconds(100), holdsLock: holdsLock)
        #expect(try await first.contend())
        #expect(try await second.contend() == false)
        guard case .challenged = try await first.news() else { return #expect(Bool(false), "no challenge") }
        try await first.answerChallenge()
        guard case .nothing = try await first.news() else { return #expect(Bool(false), "answered") }
        var turns = 0
        while try await !second.contend() {
            turns += 1
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(turns >= 1, "a challenge that was answered counts no more")
        guard case .lost = try await first.news() else { return #expect(Bool(false), "not lost") }
        #expect(await code { try await first.apply([.lastID(3)]) } == .ownershipLost)
        #expect(try await second.load().lastID == 0)
        // It may come back when the other one is gone.
        let turn = try #require(first.generation)
        #expect(first.forgetOwnership(turn))
        try await second.close()
        #expect(try await first.contend())
        try await first.close()
    }

    @Test("an owner that answered is left in peace for a while, and is asked again")
    func askedNowAndThen() async throws {
        let directory = try TemporaryFolder()
        let (first, second) = (try storage(directory), try storage(directory))
        #expect(try await first.contend())
        #expect(try await second.contend() == false)
        try await first.answerChallenge()
        for _ in 0..<5 {
            #expect(try await second.contend() == false)
            guard case .nothing = try await first.news() else { return #expect(Bool(false), "asked at every look") }
        }
        let eager = try storage(directory, takeOverAfter: .milliseconds(100))
        #expect(try await eager.contend() == false)
        guard case .challenged = try await first.news() else { return #expect(Bool(false), "no challenge") }
        try await first.answerChallenge()
        while case .nothing = try await first.news() {
            #expect(try await eager.contend() == false)
            try await Task.sleep(for: .milliseconds(10))
        }
        for storage in [first, second, eager] { try await storage.close() }
    }

    // MARK: What others put in

    @Test("what is put in is claimed once, can be taken back until then, and is told through to its end")
    func submissions() async throws {
        let directory = try TemporaryFolder()
        let (owner, other) = (try storage(directory), try storage(directory))
        #expect(try await owner.contend())
        for (number, text) in ["a", "b"].enumerated() {
            let status = try await other.submit(submission(text, UInt64(number)), limits: OutboxLimits())
            #expect(status.state == .queued && status.isCancellable && status.recipient?.description == "bob")
        }
        let (a, b) = (SendID(high: 1, low: 0), SendID(high: 1, low: 1))
        #expect(try await other.waiting().map(\.send) == [a, b])
        #expect(try await other.statuses(of: [a]).first?.isCancellable == true)
        #expect(try await other.cancel(a) == .cancelled)
        #expect(try await other.statuses(of: [a]).first?.state == .cancelled)
        guard case .submissions = try await owner.news() else { return #expect(Bool(false), "nothing") }
        let expected = SharedClaim(submissions: [try submission("b", 1)], isAll: true)
        #expect(try await owner.claim() == expected)
        #expect(await code { _ = try await other.claim() } == .ownershipLost)
        #expect(try await other.cancel(b) == .tooLate(.queued))
        let row = StoredPublish(
            id: 1, tag: 2, after: 0, channel: .user(try UserID("alice")), recipient: try UserID("bob"), timeToLive: 0,
            queuedAt: 5, payload: ByteBuffer(string: "b"), send: b, attempted: true)
        try await owner.apply([.adopted(b), .insert(row), .lastID(1)])
        guard case .nothing = try await owner.news() else { return #expect(Bool(false), "claimed twice") }
        #expect(try await owner.claim().submissions.isEmpty)
        #expect(try await other.statuses(of: [b]).first?.state == .sent)
        // Sent by another way already: it is not put in again.
        #expect(try await other.submit(submission("b", 1), limits: OutboxLimits()).state == .sent)
        #expect(try await other.waiting().count == 1)
        let published = Published(id: 1, position: Position(epoch: 3, offset: 4), time: 5)
        let outcome = StoredOutcome(
            send: b, channel: row.channel, recipient: row.recipient, queuedAt: 5, state: .acknowledged(published))
        try await owner.apply([.remove(1), .outcome(outcome)])
        #expect(try await other.statuses(of: [b]).first?.state == .acknowledged(published))
        #expect(try await other.cancel(b) == .tooLate(.acknowledged(published)))
        #expect(try await other.cancel(SendID(high: 9, low: 9)) == .unknown)
        // A claim ends with its owner.
        _ = try await other.submit(submission("c", 2), limits: OutboxLimits())
        _ = try await owner.claim()
        try await owner.close()
        #expect(try await other.contend())
        #expect(try await other.statuses(of: [SendID(high: 1, low: 2)]).first?.isCancellable == true)
        #expect(
            await code {
                _ = try await other.submit(submission("d", 3), limits: OutboxLimits(messages: 1))
            } == .outboxFull)
        try await other.close()
    }

    // MARK: Clients

    @Test("a client in standby sends through the owner, follows, takes back, and connects when the owner leaves")
    func standby() async throws {
        let directory = try TemporaryFolder()
        let first = try ClientHarness(storage: try storage(directory))
        let second = try ClientHarness(storage: try storage(directory), seed: 2)
        try await first.client.connect()
        let changes = second.client.states
        try await second.client.start()
        for await state in changes { if case .standby = state { break } }
        let receipt = try await second.client.send("b", to: .user("bob"))
        let own = try await first.client.send("a", to: .user("bob"))
        _ = try await own.acknowledged()
        let published = try await receipt.acknowledged()
        #expect(receipt.state == .acknowledged(published))
        #expect(second.service.state.withLock { $0.connects.isEmpty })
        let entered = first.service.state.withLock { $0.entered.map(\.publish.id).sorted() }
        #expect(entered == [1, 2])
        // Either one can ask for it, and a later client, too, once the owner has noted how it ended.
        try await first.settle()
        #expect(try await second.client.status(of: own.send)?.state.isFinal == true)
        #expect(try await first.client.receipt(for: receipt.send)?.state == .acknowledged(published))
        #expect(await code { _ = try await second.client.logout() } == .storageInUse)
        await first.client.disconnect()
        for await state in second.client.states { if case .connected = state { break } }
        let last = try await second.client.send("c", to: .user("bob")).acknowledged()
        #expect(last.id == 3)
        #expect(
            second.service.state.withLock { $0.connects.first?.producer }
                == first.service.state.withLock {
                    $0.connects.first?.producer
                })
        let numbers = (first.service, second.service)
        #expect(
            numbers.0.state.withLock { $0.connects.map(\.connectNumber).max() ?? 0 }
                < numbers.1.state.withLock { $0.connects.map(\.connectNumber).min() ?? 0 })
        await second.client.disconnect()
    }

    enum End: CaseIterable { case disconnects, neverConnects, isLetGo }

    @Test("of two clients on one storage object the second waits until the first one is gone", arguments: End.allCases)
    func oneStorage(end: End) async throws {
        let directory = try TemporaryFolder()
        let storage = try storage(directory)
        let second: ClientHarness
        do {
            let first = try ClientHarness(storage: storage)
            second = try ClientHarness(storage: storage, seed: 2)
            // One that only sends has it as well, and gives it up to who wants to connect.
            if end != .neverConnects { try await first.client.connect() }
            let receipt = try await first.client.send("a", to: .user("bob"))
            if end != .neverConnects { _ = try await receipt.acknowledged() }
            try await second.client.start()
            if end != .neverConnects {
                for await state in second.client.states { if case .standby = state { break } }
                #expect(second.service.state.withLock { $0.connects.isEmpty })
            }
            if end == .disconnects { await first.client.disconnect() }
        }
        for await state in second.client.states { if case .connected = state { break } }
        let last = try await second.client.send("b", to: .user("bob")).acknowledged()
        #expect(last.id == 2)
        #expect(storage.isOwner)
        await second.client.disconnect()
        #expect(second.service.state.withLock { $0.connects.count } == 1)
        #expect(!storage.isOwner)
        try await storage.close()
    }

    @Test("a client that lost its turn does nothing with that of another client on the same storage object")
    func turnsOfOneStorage() async throws {
        let directory = try TemporaryFolder()
        let storage = try storage(directory, takeOverAfter: .milliseconds(100))
        let (first, second) = (storage.seat(), storage.seat())
        #expect(first === storage && second !== storage)
        #expect(try await first.contend())
        #expect(try await second.contend() == false)
        let other = try self.storage(directory, takeOverAfter: .milliseconds(100))
        while try await !other.contend() { try await Task.sleep(for: .milliseconds(10)) }
        try await other.apply([.lastID(3)])
        try await other.close()
        // It has not noticed any of that.
        #expect(try await second.contend())
        guard case .lost = try await first.news() else { return #expect(Bool(false), "not lost") }
        #expect(await code { _ = try await first.load() } == .ownershipLost)
        #expect(await code { try await first.apply([.lastID(4)]) } == .ownershipLost)
        #expect(await code { _ = try await first.claim() } == .ownershipLost)
        #expect(await code { try await first.erase() } == .ownershipLost)
        #expect(try await second.load().lastID == 3)
        try await second.apply([.lastID(5)])
        // The storage is closed for all.
        try await storage.close()
        #expect(!storage.isOwner)
        let last = try self.storage(directory)
        #expect(try await last.contend())
        #expect(try await last.load().lastID == 5)
        try await last.close()
    }

    @Test("what a process put in before it became the owner goes before what it sends then", arguments: [3, 300])
    func takenInFirst(count: Int) async throws {
        let directory = try TemporaryFolder()
        let dead = try storage(directory)
        #expect(try await dead.contend())
        let harness = try ClientHarness(storage: try storage(directory))
        var receipts: [SendReceipt] = []
        for index in 0..<count { receipts.append(try await harness.client.send("\(index)", to: .user("bob"))) }
        try await dead.close()
        for index in count..<count + 3 {
            receipts.append(try await harness.client.send("\(index)", to: .user("bob")))
        }
        #expect(try await harness.client.outbox().map(\.send) == receipts.map(\.send))
        try await harness.client.connect()
        for receipt in receipts { _ = try await receipt.acknowledged() }
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == (0..<count + 3).map(String.init))
        await harness.client.disconnect()
    }

    @Test("what a process in standby sends and takes back is told, though nobody else writes")
    func followedAlone() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        try await owner.apply([.user(try UserID("alice"))])
        let harness = try ClientHarness(storage: try storage(directory))
        let changes = harness.client.sends
        let receipt = try await harness.client.send("a", to: .user("bob"))
        #expect(receipt.channel.description == "user/alice")
        let (name, states) = (receipt.send, receipt.states)
        #expect(try await harness.client.cancel(name) == .cancelled)
        let seen: [SendState] = await states.reduce(into: []) { $0.append($1) }
        #expect(seen == [.queued, .cancelled])
        var told: [SendStatus] = []
        for await status in changes {
            told.append(status)
            if status.state.isFinal { break }
        }
        #expect(told.map(\.state) == seen && told.allSatisfy { $0.send == name && $0.channel == receipt.channel })
        try await owner.close()
        await harness.client.disconnect()
    }

    @Test("what waits for the owner keeps its kind and what it names, and where it goes")
    func kinds() async throws {
        let directory = try TemporaryFolder()
        let (owner, other) = (try storage(directory), try storage(directory))
        #expect(try await owner.contend())
        let target = Position(epoch: .max, offset: FrameLimits.maximumNumber)
        let kinds: [PublishKind] = [
            .message, .edit(target), .retract(target), .react(target), .reply(target), .request,
        ]
        var expected: [Submission] = []
        for (index, kind) in kinds.enumerated() {
            var next = try submission("p\(index)", UInt64(index))
            next.kind = kind
            next.destination = try index % 2 == 0 ? .user("bob") : .all("news")
            expected.append(next)
            _ = try await other.submit(next, limits: OutboxLimits())
        }
        #expect(try await other.waiting().map(\.kind) == kinds)
        #expect(try await owner.claim() == SharedClaim(submissions: expected, isAll: true))
        for storage in [owner, other] { try await storage.close() }
    }

    @Test("edits, reactions and replies of a client in standby go out as such; a request is the owner's to make")
    func kindsInStandby() async throws {
        let directory = try TemporaryFolder()
        let first = try ClientHarness(storage: try storage(directory))
        let second = try ClientHarness(storage: try storage(directory), seed: 2)
        try await first.client.connect()
        let place = Position(epoch: 3, offset: 9)
        let message = MessageReference(try .user("bob"), place)
        let edit = try await second.client.edit(message, to: "better")
        let reaction = try await second.client.react(to: message, with: "👍")
        let receipts = [edit, reaction]
        #expect(
            await code { try await second.client.react(to: message, with: String(repeating: "x", count: 65)) }
                == .payloadTooLarge)
        for receipt in receipts { _ = try await receipt.acknowledged() }
        let entered = first.service.state.withLock { $0.entered.map(\.publish) }
        #expect(entered.map(\.kind) == [.edit(place), .react(place)])
        #expect(
            await code {
                _ = try await second.client.request(to: UserID("bob"), text: "?", deadline: .seconds(60))
            } == .storageInUse)
        // A request that waits when another process takes over is told so, since the reply goes there.
        async let answer = code {
            _ = try await first.client.request(to: UserID("bob"), text: "?", deadline: .seconds(60))
        }
        while first.service.state.withLock({ $0.entered.count }) < 3 { await Task.yield() }
        await first.client.core.yieldOwnership(.disconnected)
        let ending = await answer
        #expect(ending == .ownershipLost)
        for harness in [first, second] { await harness.client.disconnect() }
    }

    @Test("who stops waiting for connect() still comes next; who disconnects in standby is disconnected")
    func standbyEnds() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let harness = try ClientHarness(storage: try storage(directory))
        let waiting = Task { try await harness.client.connect() }
        for await state in harness.client.states { if case .standby = state { break } }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        await harness.client.disconnect()
        guard case .disconnected = harness.client.state else { return #expect(Bool(false), "\(harness.client.state)") }
        let again = Task { try await harness.client.connect() }
        for await state in harness.client.states { if case .standby = state { break } }
        again.cancel()
        try await owner.close()
        for await state in harness.client.states { if case .connected = state { break } }
        await harness.client.disconnect()
    }

    @Test("an owner that doesn't want to connect lets one go first that does")
    func idleOwner() async throws {
        let directory = try TemporaryFolder()
        let share = try ClientHarness(storage: try storage(directory))
        let receipt = try await share.client.send("from the share sheet", to: .user("bob"))
        let app = try ClientHarness(storage: try storage(directory), seed: 2)
        try await app.client.connect()
        _ = try await receipt.acknowledged()
        #expect(app.service.state.withLock { $0.entered.count } == 1)
        #expect(share.service.state.withLock { $0.connects.isEmpty })
        let next = try await share.client.send("another", to: .user("bob"))
        _ = try await next.acknowledged()
        await app.client.disconnect()
        await share.client.disconnect()
    }

    @Test("a claim that is late takes nothing in twice, be it acknowledged or taken back meanwhile")
    func lateClaim() async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: try storage(directory))
        let handle = try await harness.client.core.handle()
        let (published, cancelled) = (try submission("a", 1), try submission("b", 2))
        func adopt(_ submission: Submission) async -> Bool {
            await withCheckedContinuation { continuation in
                handle.run { $0.adopt([submission]) { continuation.resume(returning: $0) } }
            }
        }
        #expect(await adopt(cancelled))
        #expect(try await harness.client.cancel(cancelled.send) == .cancelled)
        #expect(await adopt(cancelled))
        #expect(try await harness.client.outbox().isEmpty)
        try await harness.client.connect()
        for _ in 0..<2 {
            #expect(await adopt(published))
            let receipt = try #require(try await harness.client.receipt(for: published.send))
            _ = try await receipt.acknowledged()
        }
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == ["a"])
        await harness.client.disconnect()
    }

    @Test("what is put in is claimed by one at a time, however many ask for it")
    func claimedInTurn() async throws {
        let directory = try TemporaryFolder()
        let sharing = SharingState(storage: try storage(directory), sends: Broadcast(replaysLatest: false))
        let (begun, ended) = (Counter(), Counter())
        let turns = (1...20).map { _ in
            Task {
                try await sharing.takeIn {
                    let number = begun.increment()
                    for _ in 0..<10 { await Task.yield() }
                    return ended.increment() == number && begun.count == number
                }
            }
        }
        for turn in turns { #expect(try await turn.value, "another one began meanwhile") }
    }

    @Test("a shared file and an exclusive one keep each other out")
    func exclusive() async throws {
        let directory = try TemporaryFolder()
        let alone = try SQLiteClientStorage(path: directory.file("shared.sqlite"))
        try alone.close()
        let shared = try storage(directory)
        #expect(try await shared.contend())
        try await shared.apply([.lastID(3)])
        try await shared.close()
        let again = try SQLiteClientStorage(path: directory.file("shared.sqlite"))
        #expect(try await again.load().lastID == 3)
        try again.close()
    }
}
