import Foundation
import Logging
import LonglineServer
import Testing

@testable import LonglineControl

@Suite("The keys that the control layer signs with", .timeLimit(.minutes(1)))
struct ControlKeysTests {
    /// Hands out what each reading of the key, and of the set behind it, finds; the last one again and again.
    private final class Source: ControlKeySource {
        private let keys: Mutable<[SigningKey]>
        private let sets: Mutable<[[SigningKey]]>

        init(_ readings: [(key: SigningKey, set: [SigningKey])]) {
            keys = Mutable(readings.map { $0.key })
            sets = Mutable(readings.map { $0.set })
        }

        func signingKey() throws -> SigningKey { try Self.next(keys) }
        func trustedKeys() throws -> [VerificationKey] { try Self.next(sets).map(\.verificationKey) }

        private static func next<Value: Sendable>(_ readings: Mutable<[Value]>) throws -> Value {
            let first = try #require(readings.value.first)
            if readings.value.count > 1 { readings.value.removeFirst() }
            return first
        }
    }

    private func reading(_ readings: [(key: SigningKey, set: [SigningKey])]) -> ControlKeys {
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        return ControlKeys(Source(readings), interval: .seconds(3_600), logger: silent)
    }

    private let old = SigningKey.generate(.edDSA)
    private let new = SigningKey.generate(.edDSA)

    @Test("a key that was taken out of the set while it was read signs nothing")
    func rotatedMeanwhile() async throws {
        let keys = reading([(old, [new]), (new, [new])])
        let present = try await keys.current()
        #expect(present.tokens.key.keyID == new.keyID)
        let set = try JSONWebKeySet(json: Array(present.keySet))
        #expect(set.keys.map(\.keyID) == [new.keyID])
    }

    @Test("where the set stays without the key that signs, the keys from before stay")
    func neverTrusted() async throws {
        let keys = reading([(old, [old]), (new, [old])])
        let first = try await keys.current()
        #expect(first.tokens.key.keyID == old.keyID)
        let error = await #expect(throws: ControlError.self) { try await keys.reload() }
        #expect(error?.code == .signingKey)
        let kept = try await keys.current()
        #expect(kept.tokens.key.keyID == old.keyID)
    }
}
