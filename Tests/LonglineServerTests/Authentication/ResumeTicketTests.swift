import LonglineServer
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@Suite struct ResumeTicketTests {
    private let day: UInt64 = 86_400_000

    private func someone(expiry: UInt64 = now + 30 * 86_400_000) throws -> AuthenticatedIdentity {
        AuthenticatedIdentity(
            identity: SessionIdentity(
                tenant: try TenantID("acme"), user: try UserID("alice"), device: try DeviceID("phone"), loginEpoch: 7,
                tokenID: "token-1", expiry: expiry, mayPublish: true, mayReceive: true, mayJoin: false,
                mayWatch: true),
            generations: RevocationGenerations(user: 2, device: 5))
    }

    @Test func givesBackExactlyWhatWasSealed() async throws {
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let ticket = try #require(sealer.seal(try someone(), now: now))
        #expect(try sealer.open(ticket.ticket, now: now) == (try someone()))
        #expect(ticket.expiry == now + 7 * day)
    }

    @Test func holdsTheLongestNamesWithinTheFrameLimit() async throws {
        let long = String(repeating: "x", count: 64)
        let identity = SessionIdentity(
            tenant: try TenantID(long), user: try UserID(long), device: try DeviceID(long), loginEpoch: .max,
            tokenID: String(repeating: "j", count: 128), expiry: now + day, mayPublish: true, mayReceive: true,
            mayJoin: true, mayWatch: true,
            platform: try DevicePlatform(String(repeating: "p", count: DevicePlatform.limit)))
        let sealed = AuthenticatedIdentity(
            identity: identity, generations: RevocationGenerations(user: .max, device: .max))
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let ticket = try #require(sealer.seal(sealed, now: now))
        #expect(ticket.ticket.readableBytes <= FrameLimits.maximumTicket)
        #expect(try sealer.open(ticket.ticket, now: now) == sealed)
    }

    @Test func endsNoLaterThanItsToken() async throws {
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let ticket = try #require(sealer.seal(try someone(expiry: now + 1_000), now: now))
        #expect(ticket.expiry == now + 1_000)
        #expect(try sealer.open(ticket.ticket, now: now + 999).identity.user == (try UserID("alice")))
        #expect(
            try await authenticationFailure { _ = try sealer.open(ticket.ticket, now: now + 1_000) } == .expired)
        #expect(sealer.seal(try someone(expiry: now), now: now) == nil)
    }

    @Test func refusesAChangedBitAnywhereAndEveryOtherLength() async throws {
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let good = try #require(sealer.seal(try someone(), now: now)).ticket
        for index in 0..<good.readableBytes {
            for bit in 0..<8 {
                var changed = good
                let byte = try #require(good.getInteger(at: index, as: UInt8.self))
                changed.setInteger(byte ^ (1 << UInt8(bit)), at: index)
                let failure = try await authenticationFailure { _ = try sealer.open(changed, now: now) }
                #expect(failure == .ticketRejected, "byte \(index), bit \(bit)")
            }
            let cut = try #require(good.getSlice(at: 0, length: index))
            #expect(try await authenticationFailure { _ = try sealer.open(cut, now: now) } == .ticketRejected)
        }
        var longer = good
        longer.writeInteger(UInt8(0))
        #expect(try await authenticationFailure { _ = try sealer.open(longer, now: now) } == .ticketRejected)
        let huge = ByteBuffer(repeating: 1, count: FrameLimits.maximumTicket + 1)
        #expect(try await authenticationFailure { _ = try sealer.open(huge, now: now) } == .tooLarge)
    }

    @Test func refusesATicketOfAnotherService() async throws {
        let ticket = try #require(
            ResumeTicketSealer(keys: ResumeTicketKeys(now: now)).seal(try someone(), now: now))
        let other = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        #expect(try await authenticationFailure { _ = try other.open(ticket.ticket, now: now) } == .ticketRejected)
    }

    /// A ticket from a key's last second lives out its whole time although the key was replaced; later the key is gone.
    @Test func rotationNeverCutsATicketShort() async throws {
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let last = now + day - 1
        let ticket = try #require(sealer.seal(try someone(), now: last))
        for hour in UInt64(0)..<(7 * 24) {
            let time = last + hour * 3_600_000
            try sealer.rotateKeysIfDue(now: time, savingTo: nil)
            #expect(try sealer.open(ticket.ticket, now: time).identity.loginEpoch == 7)
        }
        try sealer.rotateKeysIfDue(now: now + 8 * day, savingTo: nil)
        // Its own time is over by then, too: the key being gone is what is seen first.
        #expect(
            try await authenticationFailure { _ = try sealer.open(ticket.ticket, now: now + 8 * day) }
                == .ticketRejected)
    }

    @Test func aKeyFromATimeThatIsYetToComeIsReplaced() throws {
        var ring = ResumeTicketKeys(now: now + 365 * day)
        let isChanged = ring.rotate(now: now)
        #expect(isChanged && "\(ring)" == "ring of 2 ticket keys")
        let isChangedAgain = ring.rotate(now: now + day - 1)
        #expect(!isChangedAgain)
        let isChangedADayLater = ring.rotate(now: now + day)
        #expect(isChangedADayLater && "\(ring)" == "ring of 3 ticket keys")
    }

    @Test func newTicketsUseTheNewKeyAtOnce() async throws {
        var ring = ResumeTicketKeys(now: now)
        let before = ResumeTicketSealer(keys: ring)
        let changedEarly = ring.rotate(now: now + day - 1)
        let changedOnTime = ring.rotate(now: now + day)
        #expect(!changedEarly && changedOnTime)
        let after = ResumeTicketSealer(keys: ring)
        let ticket = try #require(after.seal(try someone(), now: now + day))
        #expect(
            try await authenticationFailure { _ = try before.open(ticket.ticket, now: now + day) } == .ticketRejected)
        #expect(try after.open(ticket.ticket, now: now + day) == (try someone()))
    }

    @Test func aClockThatWentBackEmptiesNothing() async throws {
        var ring = ResumeTicketKeys(now: now)
        let ticket = try #require(ResumeTicketSealer(keys: ring).seal(try someone(), now: now))
        for time in [0, now - 365 * day, now + 3_600_000] {
            _ = ring.rotate(now: time)
            let sealer = ResumeTicketSealer(keys: ring)
            #expect(try sealer.open(ticket.ticket, now: now) == (try someone()))
            #expect(sealer.seal(try someone(), now: time + 5) != nil)
        }
    }
}
