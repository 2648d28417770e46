import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

@Suite(.timeLimit(.minutes(1))) struct SessionRegistryTests {
    private final class Handle: SessionHandle {
        let ends = Mutex<[Close]>([])
        func end(_ close: Close) { ends.withLock { $0.append(close) } }
        func sentPositions(within patience: Duration) async -> [ChannelPosition]? { [] }
    }

    private static let device = key("ann", "phone")

    private static func key(_ user: String, _ device: String, tenant: String = "acme") -> DeviceKey {
        identifier {
            DeviceKey(tenant: try TenantID(tenant), user: try UserID(user), device: try DeviceID(device))
        }
    }

    private static func claim(
        _ device: DeviceKey = device, link: UInt64, login: UInt64 = 1, producer: UInt64 = 1, number: UInt64 = 1
    ) -> SessionClaim {
        SessionClaim(
            device: device, link: link, session: link, loginEpoch: login,
            producer: ProducerID(high: 0, low: producer), connectNumber: number, handle: Handle())
    }

    private func code(_ result: SessionRegistry.ClaimResult) -> CloseCode? {
        if case .refused(let close) = result { close.code } else { nil }
    }

    private func isRemembered(_ device: String, _ registry: SessionRegistry) -> Bool {
        if case .detached = registry.earlierSession(of: Self.key("ann", device), now: .uptimeNanoseconds(3)) {
            true
        } else {
            false
        }
    }

    private func replaces(_ result: SessionRegistry.ClaimResult) -> Bool {
        if case .accepted(_?) = result { true } else { false }
    }

    /// Of two connects that race, the older one's handshake is complete after the newer link has come and gone.
    @Test(arguments: [
        (producer: UInt64(1), number: UInt64(5), refusal: CloseCode?.some(.stale)),
        (1, 6, nil),
        (1, 7, nil),
        (2, 5, nil),
    ])
    func claimAfterTheLaterLinkEnded(producer: UInt64, number: UInt64, refusal: CloseCode?) {
        let registry = SessionRegistry(limits: ServerLimits())
        #expect(code(registry.claim(Self.claim(link: 2, number: 6))) == nil)
        registry.release(Self.device, link: 2, sent: [], now: .uptimeNanoseconds(1))
        let claim = Self.claim(link: 1, producer: producer, number: number)
        #expect(code(registry.claim(claim, now: .uptimeNanoseconds(1))) == refusal)
        #expect(isRemembered("phone", registry) == (refusal != nil))
    }

    /// A session survives its link, and with it the login that it is of.
    @Test(arguments: [
        (login: UInt64(1), producer: UInt64(2), number: UInt64(9), refusal: CloseCode?.some(.replaced)),  // a copy's
        (1, 1, 4, nil),  // the same outbox, which lost the answer to its refresh
        (1, 1, 2, .stale),
        (2, 1, 2, .stale),
        (2, 1, 3, nil),
        (2, 2, 1, nil),
        (3, 1, 1, nil),  // a newer login, whose numbers may begin anew
    ])
    func claimWhileTheNewerLoginsLinkIsDown(login: UInt64, producer: UInt64, number: UInt64, refusal: CloseCode?) {
        let limits = ServerLimits()
        let registry = SessionRegistry(limits: limits)
        let start = NIODeadline.uptimeNanoseconds(1)
        #expect(code(registry.claim(Self.claim(link: 1, number: 3), now: start)) == nil)
        // It refreshes its login.
        #expect(registry.renew(Self.claim(link: 1, login: 2, number: 3)))
        registry.release(Self.device, link: 1, sent: [], now: start)
        let claim = Self.claim(link: 2, login: login, producer: producer, number: number)
        #expect(code(registry.claim(claim, now: start)) == refusal)
        #expect(isRemembered("phone", registry) == (refusal != nil))
        // Once its time is over nobody stands in the way, though nothing was swept.
        guard refusal != nil else { return }
        #expect(code(registry.claim(claim, now: start + limits.resumeWindow)) == nil)
    }

    /// What a second link of the same device gets: by login, outbox and connect number.
    @Test(arguments: [
        (login: UInt64(1), producer: UInt64(1), number: UInt64(2), refusal: CloseCode?.none),
        (1, 1, 1, nil),  // the same connect number: a retry of the same connect, and the later link counts
        (1, 1, 0, .stale),
        (1, 2, 0, nil),  // another outbox: numbers don't compare
        (2, 1, 0, nil),  // a newer login
        (0, 1, 9, .replaced),  // an automatic reconnect of an older login
        (0, 2, 9, .replaced),
    ])
    func takeover(login: UInt64, producer: UInt64, number: UInt64, refusal: CloseCode?) {
        let registry = SessionRegistry(limits: ServerLimits())
        #expect(code(registry.claim(Self.claim(link: 1))) == nil)
        let result = registry.claim(Self.claim(link: 2, login: login, producer: producer, number: number))
        #expect(code(result) == refusal)
        #expect(replaces(result) == (refusal == nil))
    }

    @Test func replacedLinkTakesNothingWithIt() {
        let registry = SessionRegistry(limits: ServerLimits())
        _ = registry.claim(Self.claim(link: 1))
        _ = registry.claim(Self.claim(link: 2, number: 2))
        registry.release(Self.device, link: 1, sent: [], now: .uptimeNanoseconds(0))
        #expect(registry.devices(of: Self.device.userKey) == [Self.device.device])
        registry.release(Self.device, link: 2, sent: [], now: .uptimeNanoseconds(0))
        #expect(registry.devices(of: Self.device.userKey).isEmpty)
        #expect(!registry.isOnline(Self.device.userKey))
    }

    @Test func aUsersDevicesAreThoseThatHaveASession() {
        let registry = SessionRegistry(limits: ServerLimits())
        let (phone, tablet) = (Self.key("ann", "phone"), Self.key("ann", "tablet"))
        for (link, device) in [
            phone, tablet, Self.key("bob", "phone"), Self.key("ann", "desk", tenant: "other"),
        ].enumerated() { _ = registry.claim(Self.claim(device, link: UInt64(link))) }
        func devices() -> Set<DeviceID> { Set(registry.devices(of: phone.userKey)) }
        #expect(devices() == [phone.device, tablet.device])
        // A link that takes over is the same device's, and so is one with a later login.
        _ = registry.claim(Self.claim(phone, link: 10, number: 2))
        #expect(registry.renew(Self.claim(tablet, link: 1, login: 2)))
        #expect(registry.devices(of: phone.userKey).count == 2)
        registry.release(phone, link: 0, sent: [], now: .uptimeNanoseconds(1))
        #expect(devices() == [phone.device, tablet.device], "the link that was replaced")
        registry.release(phone, link: 10, sent: [], now: .uptimeNanoseconds(1))
        #expect(devices() == [tablet.device])
        registry.release(tablet, link: 1, sent: [], now: .uptimeNanoseconds(1))
        #expect(devices().isEmpty && !registry.isOnline(phone.userKey))
        #expect(registry.devices(of: Self.key("bob", "phone").userKey).count == 1)
    }

    /// Word that another link took the device over is on its way to the one that had it, when that one's fresh token was verified.
    @Test func aHostDoesNotTakeItsPlaceBackByARefresh() async throws {
        try await withServer(loops: 1) { server in
            let phone = try await server.connected("ann")
            // Its place is taken within the turn of the loop that answered.
            try await server.runtime.loops[0].submit { _ in }
            let (registry, handle) = (server.runtime.core.registry, Handle())
            let other = SessionClaim(
                device: Self.device, link: .max, session: 99, loginEpoch: 1, producer: ProducerID(high: 0, low: 1),
                connectNumber: 1, handle: handle)
            guard case .accepted(replaced: .some(_)) = registry.claim(other) else {
                return #expect(Bool(false), "the phone had no session")
            }
            let token = try await server.issuer.token("ann", "phone")
            try await phone.send([(.refresh(Refresh(token: token)), .control)])
            #expect(try await phone.closed() == .replaced)
            guard case .attached(session: let session, _) = registry.earlierSession(of: Self.device, now: .now()) else {
                return #expect(Bool(false), "the other one lost its place")
            }
            #expect(session == 99)
            #expect(handle.ends.withLock { $0.isEmpty })
            registry.release(Self.device, link: .max, sent: [], now: .now())
        }
    }

    /// Its token is being refreshed when the device connects anew, by a credential of the login before.
    @Test func aReplacedLinkDoesNotTakeItsPlaceBackByARefresh() {
        let registry = SessionRegistry(limits: ServerLimits())
        _ = registry.claim(Self.claim(link: 1))
        #expect(registry.renew(Self.claim(link: 1, login: 2)))
        // The later login counts.
        #expect(code(registry.claim(Self.claim(link: 2, login: 1, number: 2))) == .replaced)
        #expect(replaces(registry.claim(Self.claim(link: 3, login: 2, number: 2))))
        #expect(!registry.renew(Self.claim(link: 1, login: 3)))
        registry.release(Self.device, link: 1, sent: [], now: .uptimeNanoseconds(0))
        #expect(registry.devices(of: Self.device.userKey) == [Self.device.device])
        registry.release(Self.device, link: 3, sent: [], now: .uptimeNanoseconds(0))
        #expect(!registry.renew(Self.claim(link: 1, login: 3)))
        #expect(!registry.isOnline(Self.device.userKey))
    }

    @Test func rememberedForTheResumeWindow() {
        var limits = ServerLimits()
        limits.resumeWindow = .seconds(10)
        let registry = SessionRegistry(limits: limits)
        _ = registry.claim(Self.claim(link: 7))
        let left = NIODeadline.uptimeNanoseconds(1_000_000_000)
        registry.release(Self.device, link: 7, sent: [], now: left)
        guard case .detached(7, _) = registry.earlierSession(of: Self.device, now: left + .seconds(9)) else {
            Issue.record("forgotten too early")
            return
        }
        if registry.earlierSession(of: Self.device, now: left + .seconds(10)) != nil {
            Issue.record("remembered too long")
        }
    }

    @Test func detachedSessionsAreBounded() {
        var limits = ServerLimits()
        limits.maximumDetachedSessions = 10
        limits.maximumSessionsPerUser = 1000
        let registry = SessionRegistry(limits: limits)
        for index in 0..<100 as Range<UInt64> {
            let device = Self.key("ann", "d\(index)")
            _ = registry.claim(Self.claim(device, link: index))
            registry.release(device, link: index, sent: [], now: .uptimeNanoseconds(1))
        }
        // One device that comes and goes leaves one place, not a hundred.
        for index in 100..<1000 as Range<UInt64> {
            _ = registry.claim(Self.claim(Self.key("ann", "d99"), link: index))
            registry.release(Self.key("ann", "d99"), link: index, sent: [], now: .uptimeNanoseconds(2))
        }
        var statistics = ServerStatistics()
        registry.addStatistics(to: &statistics)
        #expect(statistics.detachedSessions == 10)
        #expect(isRemembered("d0", registry) == false)
        #expect(isRemembered("d98", registry))
    }

    @Test func aUsersEndedSessionsAreForgottenTogetherAndNobodyElses() {
        var limits = ServerLimits()
        limits.maximumDetachedSessions = 5
        let registry = SessionRegistry(limits: limits)
        func leave(_ device: DeviceKey, _ link: UInt64) {
            _ = registry.claim(Self.claim(device, link: link))
            registry.release(device, link: link, sent: [], now: .uptimeNanoseconds(1))
        }
        func count() -> Int {
            var statistics = ServerStatistics()
            registry.addStatistics(to: &statistics)
            return statistics.detachedSessions
        }
        let other = Self.key("bob", "phone")
        for (index, device) in [Self.key("ann", "a"), other, Self.key("ann", "b"), Self.key("ann", "b")].enumerated() {
            leave(device, UInt64(index))
        }
        #expect(count() == 3 && registry.detachedUsers == 2)
        registry.forget(Self.device.userKey)
        #expect(count() == 1 && registry.detachedUsers == 1)
        #expect(!isRemembered("a", registry) && !isRemembered("b", registry))
        // By other ways: it is up again, forgotten alone, or gave way.
        _ = registry.claim(Self.claim(other, link: 10))
        #expect(registry.detachedUsers == 0)
        leave(Self.device, 11)
        registry.forget(Self.device)
        #expect(count() == 0 && registry.detachedUsers == 0)
        for index in 20..<40 as Range<UInt64> { leave(Self.key("user\(index)", "phone"), index) }
        #expect(count() == 5 && registry.detachedUsers == 5)
    }

    @Test func earlyLinksHaveTheRoomThatSessionsLeave() {
        var limits = ServerLimits()
        limits.maximumSessionsPerUser = 3
        limits.maximumSessionsPerTenant = 4
        limits.maximumSessions = 5
        let registry = SessionRegistry(limits: limits)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "a"), link: 1))) == nil)
        #expect(registry.reserve(Self.key("ann", "b"), link: 2))
        #expect(registry.reserve(Self.key("ann", "b"), link: 2), "the same link")
        #expect(registry.reserve(Self.key("ann", "b"), link: 3), "another link counts, whatever its device")
        #expect(!registry.reserve(Self.key("ann", "c"), link: 4))
        // One that returns has the place of its session, once.
        #expect(registry.reserve(Self.key("ann", "a"), link: 5))
        #expect(!registry.reserve(Self.key("ann", "a"), link: 6))
        #expect(!registry.reserve(Self.key("bob", "a"), link: 7), "the tenant's")
        #expect(registry.reserve(Self.key("ann", "a", tenant: "other"), link: 8))
        #expect(!registry.reserve(Self.key("bob", "a", tenant: "third"), link: 9), "all")
        // Sessions have theirs, whoever waits for a handshake.
        #expect(code(registry.claim(Self.claim(Self.key("ann", "c"), link: 10))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "b"), link: 2))) == nil)
        #expect(registry.earlyLinks == 3)
        for link in [3, 5, 8, 8] as [UInt64] { registry.giveBack(link) }
        #expect(registry.earlyLinks == 0)
        #expect(registry.reserve(Self.key("bob", "a"), link: 11))
    }

    @Test func countsPerUserTenantAndInAll() {
        var limits = ServerLimits()
        limits.maximumSessionsPerUser = 2
        limits.maximumSessionsPerTenant = 3
        limits.maximumSessions = 4
        let registry = SessionRegistry(limits: limits)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "a"), link: 1))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "b"), link: 2))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "c"), link: 3))) == .limitExceeded)
        // A device that is in already isn't one more.
        #expect(code(registry.claim(Self.claim(Self.key("ann", "a"), link: 4, number: 2))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("bob", "a"), link: 5))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("eve", "a"), link: 6))) == .overloaded)
        #expect(code(registry.claim(Self.claim(Self.key("ann", "a", tenant: "other"), link: 7))) == nil)
        #expect(code(registry.claim(Self.claim(Self.key("bob", "a", tenant: "third"), link: 8))) == .overloaded)
        registry.release(Self.key("ann", "b"), link: 2, sent: [], now: .uptimeNanoseconds(0))
        #expect(code(registry.claim(Self.claim(Self.key("ann", "c"), link: 9))) == nil)
    }
}
