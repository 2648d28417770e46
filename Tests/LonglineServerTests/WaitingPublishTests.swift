import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// Publishes that wait ahead of the store's queue, for the app's decision, the handshake, or a change of their room: they are bounded over
/// all channels.
@Suite(.timeLimit(.minutes(1))) struct WaitingPublishTests {
    private let large = String(repeating: "x", count: 15_000)

    private func room(_ number: Int) -> ChannelID { .room(identifier { try RoomID("room-\(number)") }) }

    /// A server whose app has been asked and has not answered, until the policy is released.
    private func withUndecided(
        _ limits: ServerLimits, _ body: (TestServer, ScriptedPolicy) async throws -> Void
    ) async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(60)) }
        policy.hold { _ in true }
        var settings = AuthorizationSettings(policy)
        settings.deadline = .seconds(50)
        try await TestServer(limits: limits, authorization: settings).use { server in
            do { try await body(server, policy) } catch {
                policy.release()
                throw error
            }
            policy.release()
        }
    }

    private struct Answer: Equatable {
        let id: PublishID
        let code: RefusalCode?
        var isWorthAnotherTry = false

        static func entered(_ id: PublishID) -> Answer { Answer(id: id, code: nil) }
        static func overloaded(_ id: PublishID) -> Answer { Answer(id: id, code: .overloaded, isWorthAnotherTry: true) }
    }

    private func answer(in frame: Frame) -> Answer? {
        switch frame {
        case .published(let published): .entered(published.id)
        case .refused(let refused):
            Answer(id: refused.id, code: refused.code, isWorthAnotherTry: refused.retryAfter > 0)
        default: nil
        }
    }

    /// What was answered up to now.
    private func answers(_ device: TestDevice) async throws -> [Answer] {
        try await device.send([(.ping(Ping(nonce: 1)), .control)])
        var answers: [Answer] = []
        while true {
            let next = try await device.next { frame -> Answer?? in
                if case .pong = frame { .some(nil) } else { answer(in: frame).map { .some($0) } }
            }
            guard let next else { return answers }
            answers.append(next)
        }
    }

    private func answers(_ count: Int, _ device: TestDevice) async throws -> [Answer] {
        var answers: [Answer] = []
        while answers.count < count { answers.append(try await device.next { answer(in: $0) }) }
        return answers
    }

    private func waiting(
        _ server: TestServer, _ kind: any KeyPath<ServerLoop, WaitingPublishes> & Sendable, loop: Int = 0
    ) async throws -> Int {
        try await server.runtime.loops[loop].submit { $0[keyPath: kind].count }
    }

    // MARK: For the app's decision

    @Test func whatWaitsForDecisionsIsBoundedOverAllChannels() async throws {
        var limits = ServerLimits()
        limits.waitingBytesPerSession = 40_000
        try await withUndecided(limits) { server, policy in
            let phone = try await server.connected("ann")
            try await phone.send((1...10).flatMap { phone.publishFrames(large, to: room($0)) })
            #expect(try await answers(phone) == (3...10).map { .overloaded($0) })
            #expect(try await waiting(server, \.undecidedPublishes) == 2)
            #expect(await server.runtime.statistics().publishesWithoutRoom == 8)
            policy.release()
            let decided = try await answers(2, phone)
            #expect(Set(decided.map(\.id)) == [1, 2] && decided.allSatisfy { $0.code == .unknownChannel })
            #expect(try await waiting(server, \.undecidedPublishes) == 0)
            // There is room again.
            try await phone.send(phone.publishFrames(large, to: room(3)))
            #expect(try await answers(1, phone) == [Answer(id: 11, code: .unknownChannel)])
        }
    }

    @Test func aRefusedPublishIsAnsweredInItsPlaceAndTheOnesBehindItWaitForIt() async throws {
        var limits = ServerLimits()
        limits.waitingBytesPerSession = 40_000
        try await withUndecided(limits) { server, policy in
            let phone = try await server.connected("ann")
            let frames =
                (1...3).flatMap { _ in phone.publishFrames(large, to: .user(ann), recipient: bob) }
                + phone.publishFrames("small", to: .user(ann), recipient: bob)
            try await phone.send(frames)
            #expect(try await answers(phone).isEmpty)
            policy.release()
            let outOfOrder = Answer(id: 4, code: .outOfOrder)
            #expect(try await answers(4, phone) == [.entered(1), .entered(2), .overloaded(3), outOfOrder])
            try await phone.send(Array(frames.suffix(2)))
            #expect(try await answers(2, phone) == [.entered(3), .entered(4)])
        }
    }

    @Test func onePublishOfAnySizeMayWait() async throws {
        var limits = ServerLimits()
        limits.waitingBytesPerSession = 1_000
        try await withUndecided(limits) { server, policy in
            let phone = try await server.connected("ann")
            try await phone.send(phone.publishFrames(large, to: .user(ann), recipient: bob))
            try await phone.send(phone.publishFrames("small", to: room(1)))
            #expect(try await answers(phone) == [.overloaded(2)])
            policy.release()
            #expect(try await answers(1, phone) == [.entered(1)])
        }
    }

    @Test func whatWaitsForDecisionsIsBoundedOverAllSessionsOfALoop() async throws {
        var limits = ServerLimits()
        limits.waitingBytesPerLoop = 40_000
        try await withUndecided(limits) { server, policy in
            let (phone, other) = (try await server.connected("ann"), try await server.connected("bob"))
            let elsewhere = try await server.connected("carol", loop: 1)
            try await phone.send((1...2).flatMap { phone.publishFrames(large, to: room($0)) })
            for device in [other, elsewhere] { try await device.send(device.publishFrames(large, to: room(1))) }
            #expect(try await answers(phone).isEmpty)
            #expect(try await answers(other) == [.overloaded(1)])
            #expect(try await answers(elsewhere).isEmpty)
            // A session that ends gives back what it took.
            try await phone.drop()
            #expect(try await waiting(server, \.undecidedPublishes) == 0)
            try await other.send((1...2).flatMap { other.publishFrames(large, to: room($0)) })
            #expect(try await answers(other).isEmpty)
            policy.release()
            #expect(Set(try await answers(2, other).map(\.id)) == [2, 3])
        }
    }

    // MARK: For a change of the room

    @Test(arguments: [false, true]) func whatComesBehindAJoinIsJudgedBehindIt(isAsked: Bool) async throws {
        let (store, held) = (FaultyStore(), AsyncStream.makeStream(of: Void.self))
        store.set { $0.beforeChange = { for await _ in held.stream {} } }
        let authorization = isAsked ? AuthorizationSettings(ScriptedPolicy { _ in .allow(for: .seconds(60)) }) : nil
        try await TestServer(store: store, authorization: authorization).use { server in
            defer { held.continuation.finish() }
            let phone = try await server.connected("ann")
            let hall = identifier { try RoomID("room-1") }
            let join = Frame.join(RoomRequest(request: 1, room: hall))
            let frames =
                (1...2).flatMap { phone.publishFrames("\($0)", to: .room(hall)) }
                + phone.publishFrames("elsewhere", to: .user(ann))
            try await phone.send([(join, .control)] + frames)
            // What does not wait for the join would be with the store by now, or soon.
            #expect(try await answers(1, phone) == [.entered(3)])
            #expect(try await waiting(server, \.undecidedPublishes) == 2)
            held.continuation.finish()
            #expect(try await answers(2, phone) == [.entered(1), .entered(2)])
            #expect(try await waiting(server, \.undecidedPublishes) == 0)
            // So it is with a leave.
            let leave = Frame.leave(RoomRequest(request: 2, room: hall))
            try await phone.send([(leave, .control)] + phone.publishFrames("late", to: .room(hall)))
            #expect(try await answers(1, phone) == [Answer(id: 4, code: .unknownChannel)])
        }
    }

    /// A member publishes and leaves in one go; the store has not answered the publish until `held` ends.
    private func publishAndLeave(
        _ server: TestServer, _ store: FaultyStore, _ phone: TestDevice, until held: AsyncStream<Void>
    ) async throws {
        let hall = identifier { try RoomID("room-1") }
        #expect(try await phone.request(hall, number: 1).refusal == nil)
        let isChanged = Mutex(false)
        let change: @Sendable () async -> Void = { isChanged.withLock { $0 = true } }
        store.set {
            $0.beforeAppend = { for await _ in held {} }
            $0.beforeChange = change
        }
        let leave = Frame.leave(RoomRequest(request: 2, room: hall))
        try await phone.send(phone.publishFrames("bye", to: .room(hall)) + [(leave, .control)])
        // Until the leave waits, or is with the store.
        while try await server.runtime.loops[0].submit({ $0.appends.waiterCount }) == 0, !isChanged.withLock({ $0 }) {
            await Task.yield()
        }
        let isTooEarly = isChanged.withLock { $0 }
        #expect(!isTooEarly)
    }

    @Test(arguments: [false, true]) func whatComesAheadOfALeaveIsEnteredAheadOfIt(isAsked: Bool) async throws {
        let (store, held) = (FaultyStore(), AsyncStream.makeStream(of: Void.self))
        let authorization = isAsked ? AuthorizationSettings(ScriptedPolicy { _ in .allow(for: .seconds(60)) }) : nil
        try await TestServer(store: store, authorization: authorization).use { server in
            defer { held.continuation.finish() }
            let phone = try await server.connected("ann")
            try await publishAndLeave(server, store, phone, until: held.stream)
            held.continuation.finish()
            #expect(try await answers(1, phone) == [.entered(1)])
            let left = try await phone.next { if case .roomAnswer(let answer) = $0 { answer } else { nil } }
            #expect(left.request == 2 && left.refusal == nil)
            #expect(try await server.runtime.loops[0].submit { $0.appends.waiterCount } == 0)
        }
    }

    @Test func aLeaveBehindAPublishIsMadeAlsoWhereItsLinkIsGoneByThen() async throws {
        let (store, held) = (FaultyStore(), AsyncStream.makeStream(of: Void.self))
        try await TestServer(store: store).use { server in
            defer { held.continuation.finish() }
            let phone = try await server.connected("ann")
            try await publishAndLeave(server, store, phone, until: held.stream)
            try await phone.drop()
            held.continuation.finish()
            // All that the loop began is over then, and nothing of it is left.
            let loop = server.runtime.loops[0]
            let idle = loop.eventLoop.makePromise(of: Void.self)
            loop.execute { $0.whenIdle(idle) }
            try await idle.futureResult.get()
            let hall = ChannelKey(tenant: TokenIssuer.tenant, channel: room(1))
            let page = try await store.read(hall, after: 0, upTo: nil, maximumBytes: .max, now: 0)
            #expect(page.items.count == 3, "the join, the publish and the leave")
            #expect(try await loop.submit { $0.appends.waiterCount } == 0)
        }
    }

    // MARK: For the handshake

    /// A device whose connect number was there before: what comes with it in early data may be a replay, and waits.
    private func earlyAgain(_ server: TestServer) async throws -> TestDevice {
        let first = try await server.device("ann")
        first.connectNumber = 2
        _ = try await first.connect()
        let early = try await server.device("ann", early: true)
        (early.producer, early.connectNumber) = (first.producer, 2)
        _ = try await early.connect(credential: .ticket(try #require(first.ticket).ticket), early: true)
        return early
    }

    @Test(arguments: [false, true])
    func whatWaitsForTheHandshakeIsBoundedOverAllChannels(inNumber: Bool) async throws {
        var limits = ServerLimits()
        if inNumber { limits.appendsPerSession = 2 } else { limits.waitingBytesPerSession = 40_000 }
        try await withServer(limits: limits) { server in
            let early = try await earlyAgain(server)
            let text = inNumber ? "small" : large
            let flight =
                early.publishFrames(text, to: .user(ann)) + (1...3).flatMap { early.publishFrames(text, to: room($0)) }
            try await early.send(flight, early: true)
            #expect(try await answers(early) == [.overloaded(3), .overloaded(4)])
            #expect(try await waiting(server, \.heldPublishes) == 2)
            try await early.completeHandshake()
            #expect(try await answers(2, early) == [.entered(1), Answer(id: 2, code: .unknownChannel)])
            #expect(try await waiting(server, \.heldPublishes) == 0)
            #expect(await server.runtime.statistics().publishesWithoutRoom == 2)
        }
    }

    @Test func aLinkThatNeverCompletesItsHandshakeGivesBackWhatItTook() async throws {
        try await withServer { server in
            let early = try await earlyAgain(server)
            try await early.send(early.publishFrames(large, to: .user(ann)), early: true)
            #expect(try await waiting(server, \.heldPublishes) == 1)
            try await early.drop()
            #expect(try await waiting(server, \.heldPublishes) == 0)
        }
    }

    // MARK: Memory

    /// A small payload is a piece of all that was read with it.
    @Test func whatWaitsKeepsNothingElseInMemory() throws {
        let read = ByteBuffer(repeating: 7, count: 60_000)
        let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: identifier { try DeviceID("phone") })
        for (length, most) in [(0, 1_000), (10, 1_000), (59_000, 70_000)] {
            let piece = try #require(read.getSlice(at: 5, length: length))
            let publish = Publish(id: 1, tag: 1, after: 0, recipient: nil, timeToLive: 0, payload: piece)
            let request = AppendRequest(
                device: device, producer: ProducerID(high: 1, low: 1), channel: .user(ann), publish: publish)
            let kept = request.inOwnStorage.publish.payload
            #expect(kept == piece && kept.storageCapacity <= most)
        }
    }
}
