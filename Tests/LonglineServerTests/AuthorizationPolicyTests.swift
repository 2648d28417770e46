import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let carol = identifier { try UserID("carol") }
private let hall = identifier { try RoomID("hall") }
private let vault = identifier { try RoomID("vault") }

/// The app's own decision about publishes and joins.
@Suite(.timeLimit(.minutes(1))) struct AuthorizationPolicyTests {
    private func withServer(
        _ policy: any AuthorizationPolicy, _ change: (inout AuthorizationSettings) -> Void = { _ in },
        _ body: (TestServer) async throws -> Void
    ) async throws {
        var settings = AuthorizationSettings(policy)
        change(&settings)
        try await TestServer(authorization: settings).use(body)
    }

    private func refusal(_ outcome: PublishOutcome) -> Refused? {
        if case .refused(let refused) = outcome { refused } else { nil }
    }

    // MARK: What is counted

    @Test func whatWasAskedRememberedAndFailedIsCounted() async throws {
        let policy = ScriptedPolicy { question in
            switch question.channel {
            case .room(vault): throw CancellationError()
            default: .allow(for: .seconds(60))
            }
        }
        try await withServer(policy, { $0.failureTimeToLive = .zero }) { server in
            func counts() async -> AuthorizationStatistics { await server.runtime.statistics().authorization }
            let phone = try await server.connected("ann")
            for _ in 0..<3 { _ = try await phone.message("hi", to: bob) }
            let answered = await counts()
            #expect(answered.asked == 1 && answered.remembered == 2 && answered.kept == 1)
            #expect(answered.failures == 0 && answered.underWay == 0)
            for number in 1...2 { _ = try await phone.request(vault, number: UInt64(number)) }
            let failed = await counts()
            #expect(failed.asked == 3 && failed.failures == 2 && failed.late == 0)
        }
    }

    @Test func anAnswerThatIsLateIsCountedSo() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .zero) }
        policy.hold { _ in true }
        try await withServer(policy, { $0.deadline = .milliseconds(1) }) { server in
            let phone = try await server.connected("ann")
            _ = try await phone.message("hi", to: bob)
            let counts = await server.runtime.statistics().authorization
            #expect(counts.asked == 1 && counts.failures == 1 && counts.late == 1 && counts.underWay == 1)
            policy.release()
        }
    }

    @Test func codesThatTheAppMadeUpAreCountedTogether() async throws {
        let last = Mutex<UInt32>(254)
        let policy = ScriptedPolicy { _ in
            let code = last.withLock { last in
                last += 1
                return last
            }
            return .deny(RefusalCode(rawValue: code), for: .zero)
        }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            for code in 255...258 as ClosedRange<UInt32> {
                #expect(refusal(try await phone.message("hi", to: bob))?.code.rawValue == code)
            }
            let statistics = await server.runtime.statistics()
            #expect(statistics.refusals == [RefusalCode(rawValue: 255): 1] && statistics.otherRefusals == 3)
        }
    }

    // MARK: What is asked

    @Test(arguments: [0, 1, 2, 3, 11, 20] as [UInt32])
    func aCodeThatOnlyTheLedgerMayGiveIsARefusalForGood(code: UInt32) async throws {
        let policy = ScriptedPolicy { question in
            question.channel == .user(bob) ? .deny(RefusalCode(rawValue: code), for: .zero) : .allow(for: .zero)
        }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            let refused = refusal(try await phone.message("hi", to: bob))
            #expect(refused?.code == .forbidden && refused?.retryAfter == 0)
            #expect(refusal(try await phone.message("hi", to: carol)) == nil, "the channel goes on")
        }
    }

    @Test func aPublishAndAJoinAreWhatTheAppSays() async throws {
        let policy = ScriptedPolicy { question in
            switch question.channel {
            case .room(vault): .deny(RefusalCode(rawValue: 77), for: .seconds(60))
            case .user(carol): .deny(for: .seconds(60))
            default: .allow(for: .seconds(60))
            }
        }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            #expect(try await phone.request(hall, number: 1).refusal == nil)
            #expect(try await phone.request(vault, number: 2).refusal == RefusalCode(rawValue: 77))
            #expect(refusal(try await phone.publish("hi", to: .room(hall))) == nil)
            #expect(refusal(try await phone.message("hi", to: bob)) == nil)
            // Notes to oneself, and leaving, are not asked about.
            #expect(refusal(try await phone.publish("note", to: .user(ann))) == nil)
            #expect(refusal(try await phone.message("hi", to: carol))?.code == .forbidden)
            #expect(try await phone.request(hall, number: 3, leave: true).refusal == nil)
            let asked = policy.asked.map { "\($0.action) \($0.channel)" }
            #expect(
                asked == [
                    "join room/hall", "join room/vault", "publish room/hall", "publish user/bob", "publish user/carol",
                ])
            #expect(policy.asked.allSatisfy { $0.device.user == ann && $0.device.tenant == TokenIssuer.tenant })
        }
    }

    @Test func aSignalIsAskedAboutAsAPublishThereAndDroppedWithoutAYes() async throws {
        func frame(_ user: UserID, _ text: String) -> (Frame, LaneID) {
            let signal = Signal(
                channel: .user(user), kind: .app(1), deadline: 60_000, payload: ByteBuffer(string: text))
            return (.signal(signal), .control)
        }
        func heard(_ device: TestDevice) async throws -> String {
            try await device.next { if case .signal(let signal) = $0 { String(buffer: signal.payload) } else { nil } }
        }
        let policy = ScriptedPolicy { question in
            question.channel == .user(carol) ? .deny(for: .seconds(60)) : .allow(for: .seconds(60))
        }
        try await withServer(policy) { server in
            let (phone, tablet) = (try await server.connected("ann"), try await server.connected("ann", "tablet"))
            let (other, denied) = (try await server.connected("bob"), try await server.connected("carol"))
            for round in 1...2 {
                try await phone.send([frame(carol, "\(round)"), frame(bob, "\(round)")])
                #expect(try await heard(other) == "\(round)")
            }
            try await phone.send([frame(ann, "to myself")])
            #expect(try await heard(tablet) == "to myself")
            #expect(Set(policy.asked.map(\.channel)) == [.user(carol), .user(bob)] && policy.asked.count == 2)
            while try await server.runtime.loops[0].submit({ $0.statistics.signalsDropped[.forbidden] }) != 2 {}
            #expect(try await server.runtime.loops[0].submit { $0.statistics.signalsRelayed } == 3)
            _ = denied
        }
    }

    @Test(arguments: [true, false])
    func aSignalThatWaitsForTheDecisionIsPassedOnForWhoLeftAndNotForWhoWasShutOut(isRevoked: Bool) async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(60)) }
        policy.hold { _ in true }
        try await withServer(policy, { $0.deadline = .seconds(60) }) { server in
            let (phone, other) = (try await server.connected("ann"), try await server.connected("bob"))
            let signal = Signal(
                channel: .user(bob), kind: .app(1), deadline: 60_000, payload: ByteBuffer(string: "still here"))
            try await phone.send([(.signal(signal), .control)])
            await policy.waitUntilHeld()
            if isRevoked {
                try await server.runtime.revoke(.user(UserKey(tenant: TokenIssuer.tenant, user: ann)))
            } else {
                try await phone.drop()
            }
            policy.release()
            let loop = server.runtime.loops[0]
            if isRevoked {
                while try await loop.submit({ $0.statistics.signalsDropped[.forbidden] }) != 1 {}
            } else {
                while try await loop.submit({ $0.statistics.signalsRelayed }) != 1 {}
            }
            _ = other
        }
    }

    @Test func whatTheScopesRefuseIsNotAsked() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(60)) }
        try await withServer(policy) { server in
            let phone = try await server.device("ann")
            let token = try await server.issuer.token("ann", "phone", scopes: [.receive])
            _ = try await phone.connect(credential: .token(token))
            #expect(refusal(try await phone.message("hi", to: bob))?.code == .forbidden)
            #expect(policy.asked.isEmpty)
        }
    }

    @Test(arguments: [(Duration.seconds(60), 1), (.zero, 20)])
    func aDecisionIsRememberedForItsTime(timeToLive: Duration, asked: Int) async throws {
        let policy = ScriptedPolicy { _ in .allow(for: timeToLive) }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            for index in 0..<20 { try await phone.message("\(index)", to: bob) }
            #expect(policy.asked.count == asked)
            let other = try await server.connected("bob")
            for index in 0..<20 { #expect(try await other.text(.user(bob)) == "\(index)") }
        }
    }

    // MARK: While a decision is pending

    @Test func whatComesLaterIntoTheChannelWaitsAndOtherChannelsGoOn() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(60)) }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            _ = try await phone.request(hall, number: 1)
            // The answer about carol is known already.
            try await phone.message("0", to: carol)
            policy.hold { $0.channel == .user(bob) }
            let frames =
                phone.publishFrames("1", to: .user(ann), recipient: bob)
                + phone.publishFrames("2", to: .user(ann), recipient: carol)
                + phone.publishFrames("3", to: .user(ann))
            try await phone.send(frames)
            await policy.waitUntilHeld()
            // Another channel of the session, and another session of the loop.
            #expect(refusal(try await phone.publish("meanwhile", to: .room(hall))) == nil)
            let other = try await server.connected("carol")
            #expect(refusal(try await other.message("me too", to: ann)) == nil)
            #expect(try await other.text(.user(carol)) == "0")
            policy.release()
            var texts: [String] = []
            while texts.last != "3" { texts.append(try await phone.text(.user(ann))) }
            #expect(texts.filter { $0 != "me too" } == ["0", "1", "2", "3"])
        }
    }

    @Test func aSessionThatEndsMeanwhileEntersNothing() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(60)) }
        try await withServer(policy) { server in
            let phone = try await server.connected("ann")
            policy.hold { _ in true }
            try await phone.send(phone.publishFrames("late", to: .user(ann), recipient: bob))
            await policy.waitUntilHeld()
            let key = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: phone.device)
            try await server.runtime.revoke(.device(key))
            policy.release()
            #expect(try await phone.closed() == .credentialRevoked)
            let other = try await server.connected("bob")
            policy.stopHolding()
            try await other.message("after", to: bob)
            #expect(try await other.text(.user(bob)) == "after")
        }
    }

    // MARK: Without a decision

    @Test(arguments: [AuthorizationSettings.FailureAnswer.refuseForNow, .deny, .allow])
    func aFailureHasAStatedAnswer(answer: AuthorizationSettings.FailureAnswer) async throws {
        let code: RefusalCode? =
            switch answer {
            case .refuseForNow: .overloaded
            case .deny: .forbidden
            case .allow: nil
            }
        for hangs in [false, true] {
            let policy = ScriptedPolicy { _ in throw CancellationError() }
            if hangs { policy.hold { _ in true } }
            try await withServer(policy) {
                $0.onFailure = answer
                if hangs { $0.deadline = .milliseconds(20) }
            } _: { server in
                let phone = try await server.connected("ann")
                let refused = refusal(try await phone.message("hi", to: bob))
                #expect(refused?.code == code)
                #expect((refused?.retryAfter ?? 0 > 0) == (code == .overloaded), "worth another try")
                policy.release()
            }
        }
    }

    // MARK: The gate

    private func question(_ number: Int, by user: UserID = ann, _ device: String = "phone") throws
        -> AuthorizationQuestion
    {
        let device = DeviceKey(tenant: TokenIssuer.tenant, user: user, device: try DeviceID(device))
        return AuthorizationQuestion(.publish, by: device, in: .room(try RoomID("r\(number)")))
    }

    private func gate(
        _ policy: any AuthorizationPolicy, now: @escaping @Sendable () -> NIODeadline = { .now() },
        change: (inout AuthorizationSettings) -> Void = { _ in }
    ) -> AuthorizationGate {
        var settings = AuthorizationSettings(policy)
        change(&settings)
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        return AuthorizationGate(
            settings, log: EventLog(logger: silent, linesPerSecond: 1, now: .now()), now: now)
    }

    @Test func equalQuestionsAreAskedOnceAndTooManyNotAtAll() async throws {
        let policy = ScriptedPolicy { _ in .deny(for: .seconds(60)) }
        policy.hold { _ in true }
        let gate = gate(policy, change: { $0.maximumInFlight = 2 })
        let questions = try (0..<3).map { try question($0) }
        await withTaskGroup(of: RefusalCode?.self) { group in
            for _ in 0..<50 { group.addTask { await gate.refusal(of: questions[0]) } }
            await policy.waitUntilHeld()
            group.addTask { await gate.refusal(of: questions[1]) }
            await policy.waitUntilHeld(count: 2)
            #expect(await gate.refusal(of: questions[2]) == .overloaded)
            policy.release()
            for await refusal in group { #expect(refusal == .forbidden) }
        }
        #expect(policy.asked == [questions[0], questions[1]])
    }

    @Test func aUserTakesNoMoreThanAShareOfTheQuestions() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .zero) }
        policy.hold { _ in true }
        let gate = gate(
            policy,
            change: {
                $0.maximumInFlight = 48
                $0.deadline = .seconds(3_600)
            })
        let devices = ["phone", "tablet"]
        let questions = try (0..<6).map { try question($0, by: ann, devices[$0 % 2]) }
        try await withThrowingTaskGroup(of: RefusalCode?.self) { group in
            for question in questions { group.addTask { await gate.refusal(of: question) } }
            await policy.waitUntilHeld(count: 6)
            #expect(try await gate.refusal(of: question(6)) == .overloaded)
            let other = try question(6, by: bob)
            group.addTask { await gate.refusal(of: other) }
            await policy.waitUntilHeld(count: 7)
            #expect(gate.statistics.withoutRoom == 1 && gate.statistics.underWay == 7)
            policy.release()
            for try await refusal in group { #expect(refusal == nil) }
        }
        // What the policy returned from is given back, which comes a moment after its answer.
        while gate.statistics.underWay > 0 { await Task.yield() }
        #expect(try await gate.refusal(of: question(6)) == nil)
    }

    @Test func whatIsRememberedIsBoundedInNumberAndTime() async throws {
        let clock = Mutex(NIODeadline.uptimeNanoseconds(1_000_000_000))
        let policy = ScriptedPolicy { _ in .allow(for: .seconds(3_600)) }
        let read: @Sendable () -> NIODeadline = { clock.withLock { time in time } }
        let gate = gate(
            policy, now: read,
            change: {
                $0.maximumCached = 100
                $0.maximumTimeToLive = .seconds(10)
            })
        for number in 0..<1_000 { #expect(try await gate.refusal(of: question(number)) == nil) }
        #expect(gate.cachedCount <= 100)
        let last = try question(999)
        #expect(gate.known(last) == .some(nil))
        clock.withLock { $0 = $0 + .seconds(10) }
        #expect(gate.known(last) == .none)
    }
}
