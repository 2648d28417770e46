import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineClient

@Suite("Back-off and reconnect plan")
struct BackOffTests {
    @Test("the bound doubles up to the maximum")
    func bounds() {
        let policy = BackOffPolicy(base: .milliseconds(100), maximum: .seconds(1))
        #expect((0..<6).map { policy.bound(attempt: $0) }.map(\.milliseconds) == [100, 200, 400, 800, 1000, 1000])
        #expect(policy.bound(attempt: 10_000) == .seconds(1))
    }

    @Test("delays fill the whole interval evenly and never leave it", arguments: [UInt64(1), 2, 3])
    func fullJitter(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let policy = BackOffPolicy(base: .milliseconds(100), maximum: .seconds(1))
        var quarters = [0, 0, 0, 0]
        for _ in 0..<4000 {
            let delay = policy.delay(attempt: 3, using: &random)
            #expect(delay >= .zero && delay <= .milliseconds(800), "seed \(seed)")
            quarters[min(3, Int(delay.milliseconds / 200))] += 1
        }
        // 1,000 each; five standard deviations are about 137.
        #expect(quarters.allSatisfy { (850...1150).contains($0) }, "seed \(seed): \(quarters)")
    }

    @Test("what the service asks for is a floor under the jitter", arguments: [UInt64(7), 8])
    func floor(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let policy = BackOffPolicy(base: .milliseconds(100), maximum: .seconds(1))
        let delays = (0..<200).map { _ in policy.delay(attempt: 0, floor: .seconds(9), using: &random) }
        #expect(delays.allSatisfy { $0 >= .seconds(9) && $0 <= .milliseconds(9100) }, "seed \(seed)")
        #expect(Set(delays).count > 100, "a herd that was told the same time must spread")
    }

    private func plan(_ points: Int = 1) -> ReconnectPlan {
        ReconnectPlan(
            policy: BackOffPolicy(base: .milliseconds(100), maximum: .seconds(10), resetAfter: .seconds(5)),
            accessPoints: (1...points).map { AccessPoint(host: "node\($0)", port: 443) })
    }

    @Test(
        "the close code's range decides what comes next",
        arguments: [
            (CloseCode.normal, NextStep.Kind.reconnect, false), (.shuttingDown, .reconnect, false),
            (.overloaded, .reconnect, false), (.redirect, .reconnect, false),
            (.credentialExpired, .reconnect, true), (.ticketRejected, .reconnect, true),
            (.credentialRevoked, .reconnect, true), (.versionUnsupported, .stop(.versionUnsupported), false),
            (.replaced, .stop(.replaced), false), (.loggedOut, .stop(.loggedOut), false),
            (CloseCode(rawValue: 1999), .reconnect, false),
            (CloseCode(rawValue: 5999), .stop(.init(rawValue: 5999)), false),
        ])
    func policyOfCodes(code: CloseCode, kind: NextStep.Kind, dropsTicket: Bool) {
        var random = SeededRandom(seed: 11)
        var plan = plan()
        plan.connected()
        let step = plan.ended(.closed(Close(code: code)), uptime: .seconds(60), usedTicket: true, random: &random)
        #expect(step.kind == kind)
        #expect(step.dropTicket == dropsTicket)
    }

    @Test("a redirect is followed once, in its slot, then the list counts again")
    func redirect() {
        var random = SeededRandom(seed: 5)
        var plan = plan(2)
        let close = Close(code: .redirect, retryAfter: 1500, accessPoint: "[::1]:4433")
        let step = plan.ended(.closed(close), uptime: .seconds(9), usedTicket: false, random: &random)
        #expect(step.delay == .milliseconds(1500))
        #expect(plan.target == AccessPoint(host: "::1", port: 4433))
        _ = plan.ended(.lost("dead"), uptime: nil, usedTicket: false, random: &random)
        #expect(plan.target?.host == "node2", "not to the one that sent the client away")
    }

    @Test("a dead node that another one sends clients to keeps nobody from the third")
    func redirectToDead() {
        var random = SeededRandom(seed: 5)
        var plan = plan(3)
        let close = Close(code: .redirect, accessPoint: "node2:443")
        _ = plan.ended(.closed(close), uptime: .seconds(9), usedTicket: false, random: &random)
        #expect(plan.target?.host == "node2")
        let dead = LinkEnd.failed(ClientError(.connectFailed, message: "no answer"))
        let step = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
        #expect(plan.target?.host == "node3" && step.delay == .zero)
        _ = plan.ended(dead, uptime: nil, usedTicket: false, random: &random)
        #expect(plan.target?.host == "node1" && plan.round == 1, "that was a round")
    }

    @Test(
        "nodes that send the client to and fro are slowed, then left for another one",
        arguments: [nil, Duration.milliseconds(10)])
    func redirectLoop(uptime: Duration?) {
        var random = SeededRandom(seed: 5)
        var plan = plan(3)
        var targets: [String?] = []
        for next in [2, 1, 1, 2, 3] {
            targets.append(plan.target?.host)
            let close = Close(code: .redirect, retryAfter: 20, accessPoint: "node\(next):443")
            let step = plan.ended(.closed(close), uptime: uptime, usedTicket: true, random: &random)
            #expect(step.delay >= .milliseconds(20) && step.floor == .milliseconds(20))
        }
        #expect(targets == ["node1", "node2", "node3", "node1", "node2"])
        #expect(plan.round == 4, "only one of five was followed without back-off, on the way to another node")
    }

    @Test("sessions that end early give their access point up from the second in a row, whatever ends them")
    func shortSessions() {
        let ends: [LinkEnd] = [
            .lost("reset"), .unanswered("the path stopped to answer"), .closed(Close(code: .internalError)),
        ]
        for end in ends {
            var random = SeededRandom(seed: 5)
            var plan = plan(3)
            func targets(_ count: Int, _ plan: inout ReconnectPlan) -> [String?] {
                (0..<count).map { _ in
                    defer { _ = plan.ended(end, uptime: .seconds(1), usedTicket: true, random: &random) }
                    return plan.target?.host
                }
            }
            #expect(targets(7, &plan) == ["node1", "node1", "node2", "node3", "node1", "node2", "node3"], "\(end)")
            _ = plan.ended(end, uptime: .seconds(9), usedTicket: true, random: &random)
            #expect(targets(2, &plan) == ["node1", "node1"], "one that lasted is forgiven the next: \(end)")
        }
    }

    @Test("a path of the device's own that goes says nothing about the access point")
    func ownPath() {
        var random = SeededRandom(seed: 5)
        var plan = plan(2)
        for _ in 0..<9 {
            #expect(plan.target?.host == "node1")
            _ = plan.ended(.pathGone("x"), uptime: .seconds(1), usedTicket: true, random: &random)
        }
    }

    @Test("in another network the access points are tried from the first, and back-off starts anew")
    func otherNetwork() {
        var random = SeededRandom(seed: 5)
        var plan = plan(2)
        let dead = LinkEnd.failed(ClientError(.connectFailed, message: "no answer"))
        for _ in 0..<9 { _ = plan.ended(dead, uptime: nil, usedTicket: false, random: &random) }
        #expect(plan.target?.host == "node2" && plan.round == 4)
        plan.networkChanged()
        #expect(plan.target?.host == "node1" && plan.round == 0)
        _ = plan.ended(.lost("reset"), uptime: .seconds(1), usedTicket: true, random: &random)
        plan.networkChanged()
        _ = plan.ended(.lost("reset"), uptime: .seconds(1), usedTicket: true, random: &random)
        #expect(
            plan.target?.host == "node2", "where addresses change all the time, sessions that ended early still count")
    }

    @Test("in another network the device comes back at once again, as often as in the one before")
    func immediateReturns() {
        var random = SeededRandom(seed: 5)
        var plan = plan()
        func delays() -> [Bool] {
            (0..<4).map { _ in
                plan.ended(.pathGone("x"), uptime: .seconds(1), usedTicket: true, random: &random).delay > .zero
            }
        }
        #expect(delays() == [false, false, false, true])
        plan.networkChanged()
        #expect(delays() == [false, false, false, true])
    }

    @Test("access points are tried in order without a pause, and back-off grows once a round")
    func accessPoints() {
        var random = SeededRandom(seed: 5)
        var plan = plan(3)
        var targets: [String?] = []
        var paused: [Bool] = []
        let error = ClientError(.connectFailed, message: "no answer")
        for _ in 0..<6 {
            targets.append(plan.target?.host)
            let step = plan.ended(.failed(error), uptime: nil, usedTicket: false, random: &random)
            paused.append(step.delay > .zero)
        }
        #expect(targets == ["node1", "node2", "node3", "node1", "node2", "node3"])
        #expect(paused == [false, false, true, false, false, true])
        #expect(plan.round == 2)
    }

    @Test("a session that lasted starts back-off anew, one that did not goes on with it")
    func reset() {
        var random = SeededRandom(seed: 5)
        var plan = plan()
        for _ in 0..<5 { _ = plan.ended(.lost("x"), uptime: .seconds(1), usedTicket: false, random: &random) }
        #expect(plan.round == 5)
        _ = plan.ended(.lost("x"), uptime: .seconds(6), usedTicket: false, random: &random)
        #expect(plan.round == 1)
    }

    @Test("a lost path is answered at once, but not for ever")
    func pathGone() {
        var random = SeededRandom(seed: 5)
        var plan = plan()
        let delays = (0..<4).map { _ in
            plan.ended(.pathGone("x"), uptime: .seconds(1), usedTicket: true, random: &random).delay
        }
        #expect(delays[0..<3].allSatisfy { $0 == .zero })
        #expect(plan.round == 1, "the fourth in a row backs off")
    }

    @Test("fresh tokens that are refused again and again back off")
    func refusedTokens() {
        var random = SeededRandom(seed: 5)
        var plan = plan()
        let close = LinkEnd.closed(Close(code: .credentialInvalid))
        #expect(plan.ended(close, uptime: nil, usedTicket: true, random: &random).delay == .zero)
        for _ in 0..<3 { _ = plan.ended(close, uptime: nil, usedTicket: false, random: &random) }
        #expect(plan.round == 3)
        plan.connected()
        #expect(plan.ended(close, uptime: .seconds(9), usedTicket: false, random: &random).delay == .zero)
    }

    @Test(
        "access points parse, and nonsense doesn't",
        arguments: [
            ("a.example:443", AccessPoint(host: "a.example", port: 443)),
            ("[::1]:1", AccessPoint(host: "::1", port: 1)),
            ("::1:1", nil), ("a", nil), ("a:0", nil), ("a:65536", nil), (":1", nil), ("[::1]1", nil), ("", nil),
            ("[::1", nil),
        ] as [(String, AccessPoint?)])
    func parsing(text: String, expected: AccessPoint?) {
        #expect(AccessPoint(text) == expected)
    }
}
