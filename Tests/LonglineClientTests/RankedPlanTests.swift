import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineClient

@Suite("Access points by rank") struct RankedPlanTests {
    private static let policy = BackOffPolicy(base: .milliseconds(100), maximum: .seconds(10), resetAfter: .seconds(5))
    private let dead = LinkEnd.failed(ClientError(.connectFailed, message: "no answer"))

    private func points(_ names: String...) -> [AccessPoint] { names.map { AccessPoint(host: $0, port: 443) } }

    private func plan(_ points: [AccessPoint]) -> ReconnectPlan {
        var plan = ReconnectPlan(policy: Self.policy, accessPoints: [])
        plan.rank(points, policy: Self.policy)
        return plan
    }

    @Test(
        "are tried from the best on, each after a jittered pause; back-off grows once a round, and then they are asked for anew"
    )
    func order() {
        var random = SeededRandom(seed: 5)
        var plan = plan(points("a", "b", "c"))
        var targets: [String?] = []
        var anew: [Bool] = []
        for _ in 0..<6 {
            targets.append(plan.target?.host)
            let step = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
            #expect(step.delay > .zero && step.delay <= .milliseconds(100 << plan.round))
            anew.append(step.asksAnew)
        }
        #expect(targets == ["a", "b", "c", "a", "b", "c"])
        #expect(anew == [false, false, true, false, false, true] && plan.round == 2)
    }

    @Test(
        "a herd whose first node died does not arrive at the second at the same instant", arguments: [UInt64(1), 2, 3])
    func herd(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var tenths = Array(repeating: 0, count: 10)
        for _ in 0..<2_000 {
            var plan = plan(points("a", "b"))
            let step = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
            #expect(plan.target?.host == "b")
            tenths[min(9, Int(step.delay.milliseconds / 10))] += 1
        }
        // 200 each; five standard deviations are about 67.
        #expect(tenths.allSatisfy { (133...267).contains($0) }, "seed \(seed): \(tenths)")
    }

    @Test(
        "a node that sent the client away goes last, and the control layer is asked anew",
        arguments: [CloseCode.shuttingDown, .overloaded, .redirect], [nil, Duration.seconds(60)])
    func sentAway(code: CloseCode, uptime: Duration?) {
        var random = SeededRandom(seed: 5)
        var plan = plan(points("a", "b"))
        let step = plan.ended(.closed(Close(code: code)), uptime: uptime, usedTicket: false, random: &random)
        #expect(step.kind == .reconnect && step.asksAnew && plan.target?.host == "b")
        // The new answer doesn't know it yet: it is last all the same.
        plan.rank(points("a", "c"), policy: Self.policy)
        #expect(plan.target?.host == "c")
        _ = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
        #expect(plan.target?.host == "a")
    }

    @Test("when every node sends the client away they take turns")
    func allSendAway() {
        var random = SeededRandom(seed: 5)
        var plan = plan(points("a", "b"))
        var targets: [String?] = []
        for _ in 0..<4 {
            targets.append(plan.target?.host)
            _ = plan.ended(.closed(Close(code: .shuttingDown)), uptime: .seconds(1), usedTicket: true, random: &random)
        }
        #expect(targets == ["a", "b", "a", "b"])
    }

    @Test("a session that lasted is returned to, until the next answer ranks anew")
    func home() {
        var random = SeededRandom(seed: 5)
        var plan = plan(points("a", "b"))
        _ = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
        plan.connected()
        _ = plan.ended(.lost("x"), uptime: .seconds(60), usedTicket: true, random: &random)
        #expect(plan.target?.host == "b")
        plan.rank(points("a", "b"), policy: Self.policy)
        #expect(plan.target?.host == "a")
        // That fails: the round goes on, and doesn't begin again with each answer.
        _ = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
        plan.rank(points("a", "b"), policy: Self.policy)
        #expect(plan.target?.host == "b")
        plan.rank(points("a"), policy: Self.policy)
        #expect(plan.target?.host == "a" && plan.round == 2, "what is left was tried: that was a round")
    }

    @Test("with nowhere to go the plan backs off, at least for as long as the control layer asked")
    func unlocated() {
        var random = SeededRandom(seed: 5)
        var plan = ReconnectPlan(policy: Self.policy, accessPoints: [])
        #expect(plan.target == nil)
        let error = ClientError(.controlUnavailable, message: "x")
        for round in 0..<4 {
            let end = LinkEnd.unlocated(error, retryAfter: .seconds(7))
            let step = plan.ended(end, uptime: nil, usedTicket: false, random: &random)
            #expect(step.delay >= .seconds(7) && step.delay <= .seconds(7) + .milliseconds(100 << round))
        }
        plan.rank(points("a"), policy: Self.policy)
        #expect(plan.target?.host == "a" && plan.round == 4)
    }

    @Test("a redirect goes before the ranking, for one attempt")
    func redirect() {
        var random = SeededRandom(seed: 5)
        var plan = plan(points("a", "b"))
        let close = Close(code: .redirect, retryAfter: 1500, accessPoint: "x:1")
        let step = plan.ended(.closed(close), uptime: .seconds(9), usedTicket: false, random: &random)
        #expect(step.delay == .milliseconds(1500) && plan.isRedirected)
        #expect(plan.target == AccessPoint(host: "x", port: 1))
        _ = plan.ended(.lost("dead"), uptime: nil, usedTicket: false, random: &random)
        #expect(plan.target?.host == "b" && !plan.isRedirected)
    }
}
