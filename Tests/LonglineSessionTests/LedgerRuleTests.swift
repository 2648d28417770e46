import LonglineSession
import LonglineWire
import NIOCore
import Testing

@testable import LonglineTestKit

/// What the simulation expects of a ledger that has forgotten something.
@Suite("Ledgers in the simulation")
struct LedgerRuleTests {
    private static var user: UserID { Fixture.user("alice") }
    private static var device: DeviceID { Fixture.identity().device }

    private static func publish(_ id: PublishID, to store: SimulatedStore) -> RefusalCode? {
        let answer = store.append(
            Fixture.publish(id, after: id - 1), channel: Fixture.inbox, user: user, device: device,
            producer: Fixture.producer)
        guard case .refused(let refused) = answer.outcome else { return nil }
        return refused.code
    }

    @Test("A ledger may have forgotten what so many came behind, and nothing else")
    func noticesEarlyForgetting() {
        let wall = WallTime()
        wall.set(1_000_000)
        let store = SimulatedStore(
            tenant: Fixture.identity().tenant, wall: wall, random: SeededRandom(seed: 1), faults: [])
        var violations: [String] = []
        store.violation = { violations.append($0) }
        let last = PublishID(SimulatedStore.remembered) + 1
        for id in 1...last { #expect(Self.publish(id, to: store) == nil) }
        #expect(Self.publish(1, to: store) == .outcomeUnknown)
        #expect(violations.isEmpty)
        // As if it had forgotten one too early.
        store.truth.logs[Fixture.inbox]?.entries.removeLast()
        #expect(Self.publish(1, to: store) == .outcomeUnknown)
        #expect(violations.count == 1)
    }
}
