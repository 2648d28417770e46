import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineStore

private let phone = must { try DevicePlatform("phone") }
private let tablet = must { try DevicePlatform("tablet") }

@Suite struct DevicePlacesConformanceTests {
    private func login(_ name: String, _ platform: DevicePlatform, _ number: UInt64, user: String = "alice")
        -> DeviceLogin
    {
        DeviceLogin(device: device(user, name), platform: platform, number: number)
    }

    private func refused(_ holder: String, _ login: UInt64) -> PlaceAnswer {
        .refused(holder: must { try DeviceID(holder) }, login: login)
    }

    /// Asks first, and takes: both have to say the same.
    private func take(_ store: AnyStore, _ login: DeviceLogin, _ policy: DevicePolicy) async throws -> PlaceAnswer {
        let told = try await store.place(of: login, policy: policy)
        let answer = try await store.takePlace(of: login, policy: policy)
        #expect(told == answer)
        return answer
    }

    @Test("only a newer login takes a place", arguments: StoreKind.allCases)
    func onlyANewerLoginTakesAPlace(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await take(store, login("a", phone, 5), .one) == .taken)
            #expect(try await take(store, login("a", phone, 5), .one) == .held)
            // An equal login of another device came second; an older one never comes back.
            #expect(try await take(store, login("b", phone, 5), .one) == refused("a", 5))
            #expect(try await take(store, login("b", tablet, 4), .one) == refused("a", 5))
            #expect(try await take(store, login("b", tablet, 6), .one) == .taken)
            #expect(try await take(store, login("a", phone, 5), .one) == refused("b", 6))
            // The device's own older login, too.
            #expect(try await take(store, login("b", tablet, 5), .one) == refused("b", 6))
            // Asking changed nothing.
            #expect(try await store.place(of: login("c", phone, 9), policy: .one) == .taken)
            #expect(try await take(store, login("b", tablet, 6), .one) == .held)
            // Another user, and another tenant's user of the same name, have places of their own.
            #expect(try await take(store, login("a", phone, 1, user: "bob"), .one) == .taken)
            let stranger = DeviceKey(tenant: try TenantID("other"), user: user("alice"), device: try DeviceID("a"))
            let other = DeviceLogin(device: stranger, platform: phone, number: 1)
            #expect(try await take(store, other, .one) == .taken)
        }
    }

    @Test("each platform has a place", arguments: StoreKind.allCases)
    func eachPlatformHasAPlace(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await take(store, login("a", phone, 5), .onePerPlatform) == .taken)
            #expect(try await take(store, login("t", tablet, 3), .onePerPlatform) == .taken)
            #expect(try await take(store, login("u", .unknown, 1), .onePerPlatform) == .taken)
            #expect(try await take(store, login("b", phone, 4), .onePerPlatform) == refused("a", 5))
            #expect(try await take(store, login("b", phone, 6), .onePerPlatform) == .taken)
            #expect(try await take(store, login("t", tablet, 3), .onePerPlatform) == .held)
            // A device that is called something else now leaves its mark where it was.
            #expect(try await take(store, login("b", tablet, 7), .onePerPlatform) == .taken)
            #expect(try await take(store, login("a", phone, 5), .onePerPlatform) == refused("b", 6))
        }
    }

    @Test("a policy may change: what is kept is the same", arguments: StoreKind.allCases)
    func aPolicyMayChange(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await take(store, login("a", phone, 5), .onePerPlatform) == .taken)
            #expect(try await take(store, login("t", tablet, 8), .onePerPlatform) == .taken)
            #expect(try await take(store, login("a", phone, 5), .one) == refused("t", 8))
            #expect(try await take(store, login("t", tablet, 8), .one) == .held)
            #expect(try await take(store, login("a", phone, 5), .onePerPlatform) == .held)
            // Where all may come, nothing is counted.
            #expect(try await take(store, login("z", phone, 0), .all) == .held)
            #expect(try await take(store, login("a", phone, 5), .onePerPlatform) == .held)
        }
    }

    @Test(
        "a place and a revocation outlive their device and the sweep, and go with the account",
        arguments: StoreKind.allCases)
    func aPlaceOutlivesItsDevice(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            _ = try await store.admit(device("alice", "a"), producer: producer, connectNumber: 1)
            #expect(try await take(store, login("a", phone, 5), .one) == .taken)
            try await store.revoke(device: device("alice", "a"))
            clock.advance(400 * 24 * 3_600 * 1_000)
            #expect(try await store.sweep().devices == 1)
            // A token from before may be good for years.
            #expect(try await store.generations(of: device("alice", "a")).device == 1)
            #expect(try await take(store, login("b", phone, 4), .one) == refused("a", 5))
            while try await !store.erase(user: user("alice"), in: tenant).isDone {}
            #expect(try await take(store, login("b", phone, 1), .one) == .taken)
        }
    }

    @Test("a user has a bounded number of platforms", arguments: StoreKind.allCases)
    func platformsAreBounded(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.platformsPerUser = 2
        try await withStore(kind, limits: limits) { store async throws in
            #expect(try await take(store, login("a", phone, 1), .onePerPlatform) == .taken)
            #expect(try await take(store, login("b", tablet, 1), .onePerPlatform) == .taken)
            let error = await #expect(throws: StoreError.self) {
                try await store.takePlace(of: login("c", .unknown, 2), policy: .onePerPlatform)
            }
            #expect(error?.code == .limitExceeded)
            #expect(try await take(store, login("c", tablet, 2), .onePerPlatform) == .taken)
        }
    }

    @Test func aPlaceIsOnDisk() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path))
        _ = try await store.takePlace(of: login("a", phone, .max), policy: .one)
        try await store.close()
        let again = try SQLiteStore(configuration(folder.path))
        #expect(try await again.takePlace(of: login("b", phone, 9), policy: .one) == refused("a", .max))
        #expect(try await again.takePlace(of: login("a", phone, .max), policy: .one) == .held)
        try await again.close()
    }
}
