import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

@Suite("Asking whether a path outlives a silence")
struct SilenceTests {
    private let now = Fixture.start

    private func test() -> SilenceTest { SilenceTest(answerTimeout: .seconds(5), now: now) }

    /// A question that left after the link was quiet for a second.
    private func asked(_ seconds: Int64 = 60) -> SilenceTest {
        var test = test()
        #expect(test.deadline == now + .seconds(1))
        #expect(test.due(now: now, nonce: 1) == .ask)
        test.sent(now: now)
        test.ask(.seconds(seconds), nonce: 1, address: "a", now: now)
        test.received(now: now + .milliseconds(30))
        return test
    }

    private func at(_ seconds: Int64) -> NIODeadline { now + .seconds(seconds) }

    @Test("An answer that comes by itself shows how long the path was really quiet")
    func lived() {
        var test = asked()
        test.received(now: at(60))
        #expect(test.answered(nonce: 1, address: "a", now: at(60)) == .lived(.milliseconds(59_970)))
        #expect(test.isDueToAsk(now: at(60)))

        // Something came in between.
        test = asked()
        test.received(now: at(40))
        test.received(now: at(60))
        #expect(test.answered(nonce: 1, address: "a", now: at(60)) == .lived(.seconds(20)))

        // Something was sent just before: it may have opened the path.
        test = asked()
        test.sent(now: at(60))
        test.received(now: at(60) + .milliseconds(10))
        #expect(test.answered(nonce: 1, address: "a", now: at(60) + .milliseconds(10)) == .none)

        // The answer waited for a device that slept: it shows what was asked, not how long the sleep was.
        test = asked()
        test.received(now: at(500))
        #expect(test.answered(nonce: 1, address: "a", now: at(500)) == .lived(.seconds(60)))

        test = asked()
        #expect(test.answered(nonce: 7, address: "a", now: at(60)) == .none, "another ping's")
    }

    @Test("A missing answer, another address right after: the path died", arguments: [true, false])
    func died(otherAddress: Bool) {
        var test = asked()
        #expect(test.deadline == at(65))
        #expect(test.due(now: at(65), nonce: 2) == .ping)
        test.sent(now: at(65))
        test.received(now: at(65) + .milliseconds(100))
        // The first answer may name the old address.
        #expect(test.answered(nonce: 2, address: "a", now: at(65) + .milliseconds(100)) == .none)
        #expect(test.deadline == at(65) + .milliseconds(400))
        #expect(test.due(now: test.deadline, nonce: 3) == .ping)
        test.received(now: at(66))
        #expect(
            test.answered(nonce: 3, address: otherAddress ? "b" : "a", now: at(66))
                == .died(.milliseconds(59_970), confirmed: otherAddress))
    }

    @Test("A path that only another port repaired was dead")
    func repaired() {
        var test = asked()
        #expect(test.due(now: at(65), nonce: 2) == .ping)
        #expect(test.doubtedSilence == .milliseconds(59_970))
        test.pathChanged(now: at(70))
        test.received(now: at(70) + .milliseconds(100))
        // It is told twice, the second time to ask for the address once more.
        test.pathChanged(now: at(70) + .milliseconds(300))
        #expect(test.due(now: test.deadline, nonce: 4) == .ping)
        #expect(
            test.answered(nonce: 4, address: "a", now: at(71)) == .died(.milliseconds(59_970), confirmed: true))
    }

    @Test("A move to another path while the address is asked for shows nothing", arguments: [true, false])
    func moved(isCompared: Bool) {
        var test = asked()
        #expect(test.due(now: at(65), nonce: 2) == .ping)
        test.received(now: at(65) + .milliseconds(100))
        if isCompared { #expect(test.due(now: test.deadline, nonce: 3) == .ping) }
        test.pathChanged(now: at(66))
        test.received(now: at(66) + .milliseconds(100))
        #expect(test.answered(nonce: 3, address: "b", now: at(66) + .milliseconds(100)) == .none)
        #expect(test.due(now: test.deadline, nonce: 4) == .ask)
    }

    @Test("No second answer leaves it in doubt")
    func doubt() {
        var test = asked()
        #expect(test.due(now: at(65), nonce: 2) == .ping)
        test.received(now: at(66))
        #expect(test.due(now: test.deadline, nonce: 3) == .ping)
        #expect(test.due(now: test.deadline, nonce: 4) == .doubtful(.milliseconds(59_970)))
    }

    @Test("A timer that overslept accuses nobody")
    func overslept() {
        var test = asked()
        #expect(test.due(now: at(300), nonce: 2) == .ping)
        #expect(test.doubtedSilence == nil)
    }

    @Test("A server that answers too early is not asked more often for it")
    func early() {
        var test = asked()
        test.received(now: at(2))
        _ = test.answered(nonce: 1, address: "a", now: at(2))
        #expect(!test.isDueToAsk(now: at(2)))
        #expect(test.deadline == at(59))
    }

    @Test("Behind a change of the path nothing is asked for a while, in another network neither")
    func settles() {
        var test = SilenceTest(answerTimeout: .seconds(5), now: at(0))
        test.pathChanged(now: at(0))
        test.networkChanged(now: at(0))
        test.pathChanged(now: at(1))
        #expect(!test.isDueToAsk(now: at(3)))
        #expect(test.deadline == at(1) + .milliseconds(2_500))
        // What else it rested for is over with the network.
        test = asked()
        test.received(now: at(2))
        _ = test.answered(nonce: 1, address: "a", now: at(2))
        test.networkChanged(now: at(3))
        #expect(test.deadline == at(3) + .milliseconds(2_500))
    }

    @Test("Another path, or another network, drops the question")
    func dropped() {
        for (change, rest) in [
            ({ (test: inout SilenceTest) in test.pathChanged(now: self.at(30)) }, 2_500),
            ({ $0.networkChanged(now: self.at(30)) }, 1_000),
        ] {
            var test = asked()
            change(&test)
            #expect(test.deadline == at(30) + .milliseconds(Int64(rest)))
            test.received(now: at(60))
            #expect(test.answered(nonce: 1, address: "b", now: at(60)) == .none)
        }
    }

    @Test("Where no path can change, a silence that kills the link counts when it does so twice")
    func withoutPathChange() {
        var configuration = ClientSessionConfiguration()
        configuration.heartbeat = .learned()
        var session = ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.networkChanged(HeartbeatKnowledge(lived: .seconds(30)), now: now)
        var random = SeededRandom(seed: 1)
        var time = now
        for link in UInt64(1)...2 {
            session.linkOpened(
                credential: .token("t"), connectNumber: link, supportsPathChange: false, outbox: [], now: time)
            session.received(.connected(Fixture.connected()), lane: .control, now: time)
            _ = session.drain()
            var questions: [UInt64] = []
            var end: CloseCode?
            while end == nil, let deadline = session.nextDeadline {
                time = deadline
                session.deadlineReached(now: time, random: &random)
                let actions = session.drain()
                questions += actions.frames.compactMap {
                    if case .ping(let ping) = $0, ping.answerAfter > 0 { ping.answerAfter } else { nil }
                }
                end = actions.endCode
            }
            #expect(questions == [90_000])
            #expect(end == .idle)
            session.linkClosed(now: time)
        }
        #expect(session.heartbeatKnowledge == HeartbeatKnowledge(lived: .seconds(30), died: .seconds(90)))
    }

    @Test("What a received frame leads to is waited for, whatever else came together with that frame")
    func sentBehindAFrame() throws {
        var configuration = ClientSessionConfiguration()
        configuration.heartbeat = .learned()
        var session = ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.networkChanged(HeartbeatKnowledge(lived: .seconds(300), died: .seconds(310)), now: now)
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: true, outbox: [], now: now)
        // One publish at a time.
        session.received(.connected(Fixture.connected(window: 200)), lane: .control, now: now)
        let lane = LaneID(rawValue: 1)
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, now: now)
        _ = session.drain()
        // A question waits for its answer, for minutes.
        var random = SeededRandom(seed: 1)
        session.deadlineReached(now: at(1), random: &random)
        #expect(session.drain().pings == 1)
        session.packetReceived(now: at(2))
        #expect(try #require(session.nextDeadline) > at(100))
        for row in [Fixture.row(1), Fixture.row(2, after: 1)] {
            let isTaken = session.enqueue(row, now: at(3))
            #expect(isTaken)
        }
        #expect(session.drain().publishes.map(\.id) == [1])
        let published = Published(id: 1, position: Position(epoch: Fixture.epoch, offset: 3), time: 0)
        session.received(.published(published), lane: lane, now: at(4))
        let pong = Pong(nonce: 99, observedAddress: "192.0.2.1:1")
        session.received(.pong(pong), lane: .control, now: at(4))
        session.packetReceived(now: at(4) + .milliseconds(1))
        #expect(session.nextDeadline == at(9))
        #expect(session.drain().publishes.map(\.id) == [2])
        session.packetReceived(now: at(5))
        #expect(try #require(session.nextDeadline) > at(100))
    }

    @Test("The mode is said behind CONNECT and when it changes; back in the foreground the path is asked")
    func mode() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.setMode(.lowPower, now: now)
        #expect(session.drain().isEmpty)
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: true, outbox: [], now: now)
        let first = session.drain().frames
        // Before it, once: all the cursors that there are.
        #expect(first.count == 3 && first.first == .cursors(Cursors([], areAll: true)))
        guard case .connect = first[1] else { return #expect(Bool(false), "CONNECT goes before MODE") }
        #expect(first.last == .mode(.lowPower))
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        session.setMode(.lowPower, now: now)
        #expect(session.drain().isEmpty)
        session.setMode(.foreground, now: now)
        let actions = session.drain()
        #expect(actions.frames.first == .mode(.foreground) && actions.pings == 1)
    }
}
