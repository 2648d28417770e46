import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

@Suite("Learning how long a network may be quiet")
struct HeartbeatLearnerTests {
    /// A network that forgets a path after a silence, and a learner that asks it.
    private struct Network {
        var timeout: TimeAmount
        var learner: HeartbeatLearner
        var random = SeededRandom(seed: 1)

        init(_ timeout: TimeAmount, _ knowledge: HeartbeatKnowledge = HeartbeatKnowledge()) {
            self.timeout = timeout
            learner = HeartbeatLearner(knowledge: knowledge)
            learner.bound(minimum: 5_000, idleTimeout: 600_000)
        }

        @discardableResult
        mutating func ask() -> TimeAmount {
            let silence = learner.next(isFirst: false, random: &random)
            if silence < timeout { learner.lived(silence) } else { learner.died(silence, confirmed: true) }
            return silence
        }

        mutating func settle() -> Int {
            var asked = 0
            while !learner.isSettled {
                ask()
                asked += 1
            }
            return asked
        }
    }

    @Test("Eight questions reach four fifths of any timeout, and no beat is longer than the timeout")
    func anyTimeout() {
        var random = SeededRandom(seed: 4)
        for _ in 0..<2_000 {
            let timeout = TimeAmount.milliseconds(Int64.random(in: 11_000...399_000, using: &random))
            var network = Network(timeout)
            var asked = 0
            while network.learner.interval.nanoseconds < timeout.nanoseconds / 5 * 4, asked < 20 {
                network.ask()
                asked += 1
            }
            #expect(asked <= 8, "\(timeout)")
            _ = network.settle()
            for _ in 0..<50 {
                let beat = network.ask()
                #expect(beat < timeout && beat <= network.learner.interval, "\(timeout)")
            }
        }
    }

    @Test("A network that keeps paths for long gets two thirds of the server's idle timeout")
    func noTimeout() {
        var network = Network(.hours(24))
        #expect(network.settle() <= 6)
        #expect(network.learner.knowledge == HeartbeatKnowledge(lived: .seconds(400), died: nil))
        #expect(network.learner.interval == .seconds(360))
        for _ in 0..<300 { network.ask() }
        #expect(network.learner.isSettled, "there is nothing longer to try")
    }

    @Test("A network that forgets sooner than the server serves beats gets the server's minimum")
    func shortTimeout() {
        var network = Network(.seconds(3))
        _ = network.settle()
        #expect(network.learner.interval == .seconds(5))
        for _ in 0..<10 { #expect(network.ask() <= .seconds(5)) }
    }

    @Test(
        "A network that forgot sooner than the server serves beats, and doesn't any more, is found out in low power, too",
        arguments: [SessionMode.foreground, .lowPower])
    func shortTimeoutForAWhile(mode: SessionMode) {
        var network = Network(.seconds(3))
        network.learner.mode = mode
        _ = network.settle()
        #expect(network.learner.interval == .seconds(5))
        network.timeout = .seconds(120)
        // A hundred beats, and the longer one that is tried then.
        for _ in 0...100 { network.ask() }
        #expect(network.settle() <= 8)
        #expect((TimeAmount.seconds(96)..<(.seconds(120))).contains(network.learner.interval))
    }

    @Test("A death in doubt counts when it comes twice")
    func doubt() {
        var learner = HeartbeatLearner()
        var random = SeededRandom(seed: 1)
        learner.bound(minimum: 5_000, idleTimeout: 600_000)
        learner.lived(.seconds(10))
        let asked = learner.next(isFirst: false, random: &random)
        #expect(asked == .seconds(30))
        learner.died(asked, confirmed: false)
        #expect(learner.knowledge.died == nil)
        #expect(learner.next(isFirst: false, random: &random) == asked, "it is asked once more")
        learner.died(asked, confirmed: false)
        #expect(learner.knowledge.died == asked)
        #expect(learner.next(isFirst: false, random: &random) < asked)

        // In between it lived: the first time was something else.
        learner = HeartbeatLearner(knowledge: HeartbeatKnowledge(lived: .seconds(10)))
        learner.died(.seconds(30), confirmed: false)
        learner.lived(.seconds(30))
        learner.died(.seconds(90), confirmed: false)
        #expect(learner.knowledge == HeartbeatKnowledge(lived: .seconds(30)))
    }

    @Test("A doubt is about one silence: what a shorter one does neither ends it nor proves it")
    func doubtOfOneSilence() {
        func inDoubt() -> HeartbeatLearner {
            var learner = HeartbeatLearner(knowledge: HeartbeatKnowledge(lived: .seconds(90)))
            learner.bound(minimum: 5_000, idleTimeout: 600_000)
            learner.died(.seconds(270), confirmed: false)
            return learner
        }
        let tooLong = HeartbeatKnowledge(lived: .seconds(90), died: .seconds(270))
        var learner = inDoubt()
        learner.lived(.seconds(20))
        // What comes right behind the question cuts the silence a little.
        learner.died(.milliseconds(269_900), confirmed: false)
        #expect(learner.knowledge == tooLong)

        learner = inDoubt()
        learner.died(.seconds(10), confirmed: false)
        #expect(learner.knowledge == HeartbeatKnowledge(lived: .seconds(90)))
        learner.died(.seconds(270), confirmed: false)
        #expect(learner.knowledge == tooLong)

        learner = inDoubt()
        learner.lived(.milliseconds(269_900))
        learner.died(.seconds(400), confirmed: false)
        #expect(learner.knowledge == HeartbeatKnowledge(lived: .milliseconds(269_900)), "as long as the doubted one")

        // Where nothing lives, and something always comes before the silence is over, that is found out, too.
        learner = inDoubt()
        var random = SeededRandom(seed: 2)
        var deaths = 0
        while learner.knowledge.died == nil, deaths < 1_000 {
            learner.died(.seconds(Int64.random(in: 1...260, using: &random)), confirmed: false)
            deaths += 1
        }
        #expect(deaths < 20)
    }

    @Test("While a longer one is tried, a shorter one that dies in doubt shows nothing")
    func doubtWhileRetrying() {
        var network = Network(.seconds(30))
        _ = network.settle()
        let (known, usual) = (network.learner.knowledge, network.learner.interval)
        for _ in 0..<100 { network.learner.lived(usual) }
        let longer = network.learner.next(isFirst: false, random: &network.random)
        #expect(longer > usual)
        network.learner.died(.seconds(10), confirmed: false)
        #expect(network.learner.knowledge == known)
        let again = network.learner.next(isFirst: false, random: &network.random)
        #expect(again == longer)
        network.learner.died(longer, confirmed: false)
        let beat = network.learner.next(isFirst: false, random: &network.random)
        #expect(network.learner.interval == usual && beat <= usual)

        // A server that allows less than what is to be tried: what it allows is tried, and counts.
        var learner = HeartbeatLearner(knowledge: HeartbeatKnowledge(lived: .seconds(200), died: .seconds(210)))
        learner.bound(minimum: 5_000, idleTimeout: 600_000)
        for _ in 0..<100 { learner.lived(.seconds(180)) }
        learner.bound(minimum: 5_000, idleTimeout: 120_000)
        learner.died(.seconds(80), confirmed: false)
        #expect(learner.knowledge == HeartbeatKnowledge(died: .seconds(80)))
    }

    @Test("A beat that dies leads back to the start at once", arguments: [true, false])
    func stepsBack(confirmed: Bool) {
        var network = Network(.seconds(120))
        _ = network.settle()
        let beat = network.learner.next(isFirst: false, random: &network.random)
        network.learner.died(beat, confirmed: confirmed)
        #expect(!network.learner.isSettled)
        #expect(network.learner.interval == .seconds(10))
        network.timeout = .seconds(30)
        #expect(network.ask() == .seconds(10))
        _ = network.settle()
        #expect((TimeAmount.seconds(24)..<(.seconds(30))).contains(network.learner.interval))
    }

    @Test("After many beats a longer one is tried: it costs one beat where nothing changed, and finds what did")
    func retries() {
        var network = Network(.seconds(30))
        _ = network.settle()
        let before = network.learner
        var longer = 0
        for _ in 0..<1_000 where network.ask() > before.interval { longer += 1 }
        #expect((9...10).contains(longer))
        #expect(network.learner.interval == before.interval)

        network.timeout = .seconds(120)
        for _ in 0..<120 { network.ask() }
        #expect((TimeAmount.seconds(96)..<(.seconds(120))).contains(network.learner.interval))
    }

    @Test("In low power beats are rarer, and nothing is tried")
    func lowPower() {
        var network = Network(.seconds(60))
        _ = network.settle()
        let usual = network.learner.interval
        network.learner.mode = .lowPower
        #expect(network.learner.interval > usual && network.learner.interval < .seconds(60))
        for _ in 0..<500 { #expect(network.ask() < .seconds(60)) }
    }

    @Test("What is remembered is the first beat; what contradicts itself is forgotten")
    func remembers() {
        var network = Network(.seconds(60))
        _ = network.settle()
        let again = Network(.seconds(60), network.learner.knowledge)
        #expect(again.learner.isSettled && again.learner.interval == network.learner.interval)
        var random = SeededRandom(seed: 9)
        for _ in 0..<200 {
            let first = again.learner.next(isFirst: true, random: &random)
            #expect(first.nanoseconds >= again.learner.interval.nanoseconds / 2 && first <= again.learner.interval)
        }

        let reversed = HeartbeatLearner(knowledge: HeartbeatKnowledge(lived: .seconds(60), died: .seconds(20)))
        #expect(reversed.knowledge == HeartbeatKnowledge(lived: .seconds(60)))
        let negative = HeartbeatLearner(knowledge: HeartbeatKnowledge(lived: .seconds(-1), died: .seconds(20)))
        #expect(negative.knowledge == HeartbeatKnowledge())
    }
}
