import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = UserKey(tenant: TokenIssuer.tenant, user: identifier { try UserID("ann") })

/// One user's home, on a clock that the test moves.
private struct Scene {
    var home: PresenceHome
    var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    /// The wall clock, in milliseconds.
    var time: UInt64 = 1_700_000_000_000
    /// What the loops were told, with when.
    var told: [(at: NIODeadline, update: PresenceUpdate, loops: [Int])] = []
    var seen: [UInt64] = []

    init(grace: TimeAmount = .seconds(10), interval: TimeAmount = .seconds(5)) {
        home = PresenceHome(timing: PresenceTiming(grace: grace, interval: interval))
    }

    var states: [PresenceState] { told.map(\.update.state) }

    mutating func report(_ link: UInt64, _ state: PresenceState?) {
        home.report(ann, link: link, state: state, time: time, now: now)
        collect()
    }

    mutating func watch(loop: Int = 0, _ record: PresenceRecord = PresenceRecord()) {
        home.watch(ann, loop: loop, record: record, now: now)
        collect()
    }

    mutating func set(_ visibility: PresenceVisibility) {
        home.set(visibility, of: ann, now: now)
        collect()
    }

    /// Time passes, deadline by deadline.
    mutating func pass(_ amount: TimeAmount) {
        let end = now + amount
        while let next = home.nextDeadline, next <= end {
            advance(to: max(next, now))
            home.deadlineReached(now: now)
            collect()
        }
        advance(to: end)
    }

    private mutating func advance(to end: NIODeadline) {
        time += UInt64((end - now).nanoseconds / 1_000_000)
        now = end
    }

    private mutating func collect() {
        for news in home.takeNews() { told.append((now, news.update, news.loops.sorted())) }
        seen += home.takeSeen().values
    }
}

@Suite("A user's home") struct PresenceHomeTests {
    @Test func aWatcherIsToldThePresentStateAtOnceAndThenTheChanges() {
        var scene = Scene()
        scene.watch(PresenceRecord(lastSeen: 77))
        #expect(scene.told.map(\.update) == [PresenceUpdate(user: ann.user, state: .offline, lastSeen: 77)])
        scene.pass(.seconds(60))
        scene.report(1, .online)
        #expect(scene.told.last?.update == PresenceUpdate(user: ann.user, state: .online, lastSeen: 0))
        #expect(scene.told.last?.at == scene.now, "at once: nothing was told lately")
        scene.pass(.seconds(60))
        scene.report(1, .away)
        #expect(scene.told.last?.update == PresenceUpdate(user: ann.user, state: .away, lastSeen: scene.time))
        let left = scene.time
        scene.pass(.seconds(60))
        scene.report(1, nil)
        scene.pass(.seconds(60))
        // The user was last seen in the foreground, not in the background.
        #expect(scene.told.last?.update == PresenceUpdate(user: ann.user, state: .offline, lastSeen: left))
        #expect(scene.states == [.offline, .online, .away, .offline])
    }

    @Test func severalDevicesAreOneUser() {
        var scene = Scene(interval: .milliseconds(1))
        scene.watch()
        for (link, state) in [(1, PresenceState.away), (2, .online), (3, .away), (2, .away), (3, .online), (1, nil)] {
            scene.report(UInt64(link), state)
            scene.pass(.seconds(1))
        }
        #expect(scene.states == [.offline, .away, .online, .away, .online])
        scene.report(2, nil)
        scene.report(3, nil)
        scene.pass(.seconds(60))
        #expect(scene.states.last == .offline && scene.states.count == 6)
    }

    @Test func whoComesBackWithinTheGraceWasNeverAway() {
        var scene = Scene()
        scene.report(1, .online)
        scene.watch()
        // A client that flaps: two seconds up, nine down, for an hour.
        for link in UInt64(2)..<330 {
            scene.pass(.seconds(2))
            scene.report(link - 1, nil)
            scene.pass(.seconds(9))
            scene.report(link, .online)
        }
        #expect(scene.states == [.online])
        scene.report(329, nil)
        scene.pass(.milliseconds(9_999))
        #expect(scene.states == [.online])
        scene.pass(.milliseconds(1))
        #expect(scene.states == [.online, .offline])
        #expect(scene.told.last?.update.lastSeen == scene.time - 10_000)
    }

    /// A phone comes and goes, and a computer with nobody before it stays.
    @Test func whoComesBackToTheForegroundWithinTheGraceWasNeverAway() {
        var scene = Scene()
        scene.report(1, .away)
        scene.report(2, .online)
        scene.watch()
        for link in UInt64(3)..<300 {
            scene.pass(.seconds(2))
            scene.report(link - 1, nil)
            scene.pass(.seconds(9))
            scene.report(link, .online)
        }
        #expect(scene.states == [.online])
        scene.report(299, nil)
        let left = scene.time
        scene.pass(.milliseconds(9_999))
        #expect(scene.states == [.online])
        scene.pass(.milliseconds(1))
        #expect(scene.told.last?.update == PresenceUpdate(user: ann.user, state: .away, lastSeen: left))
        // Who says that it is in the background is at once, and who comes back that way once the grace is over.
        scene.report(300, .online)
        scene.pass(.seconds(20))
        scene.report(300, .away)
        #expect(scene.states == [.online, .away, .online, .away])
        scene.pass(.seconds(60))
        scene.report(300, .online)
        scene.pass(.seconds(60))
        scene.report(300, nil)
        scene.report(301, .away)
        #expect(scene.states.last == .online)
        scene.pass(.seconds(10))
        #expect(scene.states.suffix(2) == [.online, .away])
    }

    /// A phone in the foreground and a computer in the background lose the same network for a moment.
    @Test(arguments: [true, false]) func whichDeviceIsBackFirstDoesNotShow(isComputerFirst: Bool) {
        var scene = Scene()
        scene.report(1, .away)
        scene.report(2, .online)
        scene.watch()
        for link in stride(from: UInt64(1), to: 100, by: 2) {
            scene.pass(.seconds(30))
            scene.report(link, nil)
            scene.report(link + 1, nil)
            scene.pass(.seconds(5))
            if isComputerFirst { scene.report(link + 2, .away) }
            scene.pass(.seconds(2))
            scene.report(link + 3, .online)
            if !isComputerFirst { scene.report(link + 2, .away) }
        }
        #expect(scene.states == [.online])
        // Without the phone it is the computer that counts, when the grace is over.
        scene.pass(.seconds(30))
        scene.report(101, nil)
        scene.report(102, nil)
        let left = scene.time
        scene.pass(.seconds(5))
        scene.report(103, .away)
        scene.pass(.milliseconds(4_999))
        #expect(scene.states == [.online])
        scene.pass(.milliseconds(1))
        #expect(scene.states == [.online, .away] && scene.told.last?.update.lastSeen == left)
        scene.pass(.seconds(60))
        #expect(scene.states == [.online, .away])
    }

    /// A computer in the background that comes and goes keeps nobody online, nor makes it offline within a grace of its own.
    @Test func whoFlapsInTheBackgroundIsAwayOnceTheGraceOfTheForegroundIsOver() {
        var scene = Scene(interval: .milliseconds(1))
        scene.report(1, .online)
        scene.watch()
        scene.pass(.seconds(60))
        scene.report(1, nil)
        let left = scene.now
        for link in UInt64(2)..<20 {
            scene.pass(.seconds(4))
            scene.report(link, .away)
            scene.pass(.seconds(3))
            scene.report(link, nil)
        }
        #expect(scene.states == [.online, .away] && scene.told.last?.at == left + .seconds(10))
        scene.pass(.milliseconds(9_999))
        #expect(scene.states == [.online, .away])
        scene.pass(.milliseconds(1))
        #expect(scene.states == [.online, .away, .offline])
        scene.home.unwatch(ann, loop: 0, now: scene.now)
        #expect(scene.home.count == 0)
    }

    /// A device in the background that is lost within the grace makes it no longer: the user is away until its own is over.
    @Test func whoIsLostDeviceByDeviceLingersFromTheLast() {
        var scene = Scene()
        scene.report(1, .away)
        scene.report(2, .online)
        scene.watch()
        scene.pass(.seconds(60))
        scene.report(2, nil)
        scene.pass(.seconds(8))
        scene.report(1, nil)
        scene.pass(.milliseconds(1_999))
        #expect(scene.states == [.online])
        scene.pass(.milliseconds(1))
        #expect(scene.states == [.online, .away])
        scene.pass(.milliseconds(7_999))
        #expect(scene.states == [.online, .away])
        scene.pass(.milliseconds(1))
        #expect(scene.states == [.online, .away, .offline])
        scene.home.unwatch(ann, loop: 0, now: scene.now)
        scene.pass(.seconds(60))
        #expect(scene.home.count == 0 && scene.home.nextDeadline == nil)
    }

    @Test func whoFlapsForLongerThanTheGraceIsTold() {
        var scene = Scene()
        scene.watch()
        for link in UInt64(1)..<20 {
            scene.report(link, .online)
            scene.pass(.seconds(1))
            scene.report(link, nil)
            scene.pass(.seconds(12))
        }
        #expect(scene.states == [.offline] + (1..<20).flatMap { _ in [PresenceState.online, .offline] })
    }

    @Test func aUserThatChangesAllTheTimeIsToldOnceAnInterval() {
        var scene = Scene()
        scene.report(1, .online)
        scene.watch()
        for index in 0..<600 {
            scene.report(1, index % 2 == 0 ? .away : .online)
            scene.pass(.milliseconds(100))
        }
        scene.report(1, .away)
        let changed = scene.now
        scene.pass(.seconds(10))
        for (earlier, later) in zip(scene.told, scene.told.dropFirst()) {
            #expect(later.at - earlier.at >= .seconds(5))
            #expect(later.update != earlier.update, "what did not change is not told")
        }
        #expect(scene.told.count <= 15)
        // What is so in the end is told, within an interval.
        #expect(scene.states.last == .away)
        #expect(scene.told.last.map { $0.at <= changed + .seconds(5) } == true)
    }

    /// A device that connects anew is on two links for a moment; the loops of the two report in any order.
    @Test(arguments: [true, false]) func aTakeoverIsNoChange(newFirst: Bool) {
        var scene = Scene()
        scene.report(1, .online)
        scene.watch()
        scene.pass(.seconds(30))
        if newFirst { scene.report(2, .online) }
        scene.report(1, nil)
        if !newFirst {
            scene.pass(.milliseconds(3))
            scene.report(2, .online)
        }
        scene.pass(.seconds(60))
        #expect(scene.states == [.online])
        #expect(scene.home.count == 1)
    }

    @Test func aUserDecidesWhatIsShown() {
        var scene = Scene(interval: .milliseconds(1))
        scene.report(1, .online)
        scene.pass(.seconds(1))
        scene.report(1, .away)
        let seen = scene.time
        scene.watch(PresenceRecord(visibility: .stateOnly))
        scene.pass(.seconds(1))
        scene.set(.everything)
        scene.pass(.seconds(1))
        scene.set(.nothing)
        scene.pass(.seconds(1))
        scene.report(1, .online)
        scene.pass(.seconds(1))
        scene.report(1, nil)
        scene.pass(.seconds(60))
        #expect(
            scene.told.map(\.update) == [
                PresenceUpdate(user: ann.user, state: .away, lastSeen: 0),
                PresenceUpdate(user: ann.user, state: .away, lastSeen: seen),
                PresenceUpdate(user: ann.user, state: .offline, lastSeen: 0),
            ], "whoever hides is offline, whatever happens then")
    }

    @Test func nothingShowsOfAnAccountThatIsErased() {
        var scene = Scene(interval: .milliseconds(1))
        scene.report(1, .online)
        scene.watch()
        scene.set(.stateOnly)
        scene.pass(.seconds(1))
        scene.report(1, nil)
        scene.home.forget(ann, now: scene.now)
        scene.pass(.seconds(60))
        #expect(
            scene.told.last?.update == PresenceUpdate(user: ann.user, state: .offline, lastSeen: 0))
        // Somebody else takes the name.
        scene.report(2, .online)
        scene.pass(.seconds(1))
        let seen = scene.time
        scene.report(2, nil)
        scene.pass(.seconds(60))
        #expect(scene.told.last?.update == PresenceUpdate(user: ann.user, state: .offline, lastSeen: seen))
    }

    /// What the user decided lately is newer than what a watcher read from the store before.
    @Test func aDecisionIsNotUndoneByAnOlderRecord() {
        var scene = Scene()
        scene.report(1, .online)
        scene.set(.nothing)
        scene.watch(PresenceRecord(lastSeen: 5, visibility: .everything))
        #expect(scene.told.map(\.update) == [PresenceUpdate(user: ann.user, state: .offline, lastSeen: 0)])
    }

    @Test func everyLoopThatWantsToKnowIsToldAndNoOther() {
        var scene = Scene()
        scene.report(1, .online)
        scene.watch(loop: 2)
        scene.watch(loop: 0)
        #expect(scene.told.map(\.loops) == [[2], [0]])
        // A second time costs no news but for whoever asks.
        scene.pass(.seconds(6))
        scene.report(1, .away)
        #expect(scene.told.last?.loops == [0, 2])
        scene.home.unwatch(ann, loop: 2, now: scene.now)
        scene.pass(.seconds(6))
        scene.report(1, .online)
        #expect(scene.told.last?.loops == [0])
        scene.home.unwatch(ann, loop: 0, now: scene.now)
        scene.pass(.seconds(6))
        let count = scene.told.count
        scene.report(1, .away)
        scene.pass(.seconds(60))
        #expect(scene.told.count == count)
    }

    /// A loop that begins to watch within a quiet time is told what the others know, and the rest with them.
    @Test func whoWatchesLateKnowsWhatTheOthersKnow() {
        var scene = Scene()
        scene.report(1, .online)
        scene.watch(loop: 0)
        scene.pass(.seconds(1))
        scene.report(1, .away)
        scene.watch(loop: 1)
        #expect(scene.states == [.online, .online])
        scene.pass(.seconds(4))
        #expect(scene.states == [.online, .online, .away] && scene.told.last?.loops == [0, 1])
    }

    @Test func nothingIsKeptOfUsersThatNobodyAsksFor() {
        var scene = Scene()
        scene.report(1, .online)
        scene.report(1, nil)
        #expect(scene.home.count == 1 && scene.home.nextDeadline != nil)
        scene.pass(.seconds(10))
        #expect(scene.home.count == 0 && scene.home.nextDeadline == nil)
        scene.watch()
        scene.home.unwatch(ann, loop: 0, now: scene.now)
        #expect(scene.home.count == 0)
        scene.home.unwatch(ann, loop: 9, now: scene.now)
        scene.set(.nothing)
        #expect(scene.home.count == 0, "it is in the store")
    }

    @Test func whenAUserWasSeenIsNotedAtBothEnds() {
        var scene = Scene()
        scene.report(1, .online)
        let came = scene.time
        scene.pass(.seconds(100))
        scene.report(2, .online)
        scene.report(1, .away)
        scene.report(2, .away)
        let left = scene.time
        scene.pass(.seconds(100))
        scene.report(1, nil)
        scene.report(2, nil)
        scene.pass(.seconds(100))
        #expect(scene.seen == [came, left])
    }

    /// Whatever happens: what is told follows what is so, neither too soon nor never.
    @Test(arguments: Array(1...200)) func anyHistoryIsToldByTheRules(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var scene = Scene()
        scene.watch()
        var links: [UInt64: PresenceState] = [:]
        var next: UInt64 = 1
        var lastLink = NIODeadline.uptimeNanoseconds(0)
        for _ in 0..<200 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                let link = links.keys.sorted().randomElement(using: &random).flatMap {
                    Bool.random(using: &random) ? $0 : nil
                }
                let state: PresenceState = Bool.random(using: &random) ? .online : .away
                links[link ?? next] = state
                scene.report(link ?? next, state)
                next += 1
            case 2:
                guard let link = links.keys.sorted().randomElement(using: &random) else { continue }
                links[link] = nil
                scene.report(link, nil)
                if links.isEmpty { lastLink = scene.now }
            default:
                let before = scene.told.count
                scene.pass(.milliseconds(Int64.random(in: 1...15_000, using: &random)))
                for told in scene.told[before...] where told.update.state == .offline {
                    #expect(links.isEmpty && told.at >= lastLink + .seconds(10), "seed \(seed)")
                }
            }
        }
        scene.pass(.seconds(30))
        let truth = links.values.max { $0.rawValue < $1.rawValue } ?? .offline
        #expect(scene.states.last == truth, "seed \(seed)")
        for (earlier, later) in zip(scene.told, scene.told.dropFirst()) {
            #expect(later.at - earlier.at >= .seconds(5) && later.update != earlier.update, "seed \(seed)")
        }
    }
}
