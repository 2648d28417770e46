import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }
private let team = identifier { try RoomID("team-7") }

/// Rights by channel pattern, from the token's claim to the session that lives.
@Suite(.timeLimit(.minutes(1))) struct ScopeTests {
    private func token(_ server: TestServer, _ user: String, _ scope: String) async throws -> String {
        let rights = try ScopeClaim(scope)
        return try await server.issuer.token(user, "phone", scopes: rights.scopes, grants: rights.grants)
    }

    private func connected(_ server: TestServer, _ user: String, _ scope: String, loop: Int = 0) async throws
        -> TestDevice
    {
        let device = try await server.device(user, loop: loop)
        _ = try await device.connect(credential: .token(try await token(server, user, scope)))
        return device
    }

    private func refresh(_ device: TestDevice, _ token: String) async throws {
        try await device.send([(.refresh(Refresh(token: token)), .control)])
        _ = try await device.next { if case .refreshed(let refreshed) = $0 { refreshed } else { nil } }
    }

    // MARK: The claim

    @Test func wordsWithAPatternAreReadAndTheRestIsIgnored() throws {
        let claim = try ScopeClaim("publish join:room/public-* email receive:user/bob receive:* publish: read:room/a")
        #expect(claim.scopes == [.publish])
        #expect(
            claim.grants.map(\.pattern.description) == ["room/public-*", "user/bob"]
                && claim.grants.map(\.action) == [.join, .receive])
        #expect(claim.text == "publish join:room/public-* receive:user/bob")
        #expect(try ScopeClaim(claim.text) == claim)
        #expect(try ScopeClaim("") == ScopeClaim(scopes: []))
        let erasing = try ScopeClaim("erase:user/ann receive erase")
        #expect(erasing == ScopeClaim(scopes: [.receive, .erase]) && erasing.text == "receive erase")
        #expect(try ScopeClaim("erase:user/ann") == ScopeClaim(scopes: []))
        #expect(!TokenScopes.all.contains(.erase))
    }

    @Test func moreThanATicketHoldsIsRefused() async throws {
        func words(_ count: Int, _ length: Int) -> String {
            (0..<count).map { _ in "publish:room/" + String(repeating: "x", count: length - 5) }
                .joined(separator: " ")
        }
        #expect(try ScopeClaim(words(32, 16)).grants.count == 32)
        for text in [words(33, 6), words(8, 65)] {
            #expect(try await authenticationFailure { _ = try ScopeClaim(text) } == .claimInvalid)
        }
    }

    @Test func aTicketCarriesThePatternsAndFitsAtTheirLimits() async throws {
        let long = String(repeating: "x", count: 64)
        let grants = try ScopeClaim(
            (0..<32).map { "receive:room/\($0 + 10)" + String(repeating: "y", count: 9) }.joined(separator: " ")
        ).grants
        #expect(grants.reduce(0) { $0 + $1.pattern.description.utf8.count } == ScopeClaim.maximumPatternBytes)
        let sealed = AuthenticatedIdentity(
            identity: SessionIdentity(
                tenant: try TenantID(long), user: try UserID(long), device: try DeviceID(long), loginEpoch: .max,
                tokenID: String(repeating: "j", count: 128), expiry: now + 86_400_000, mayPublish: true,
                mayReceive: false, mayJoin: true, mayErase: true, grants: grants),
            generations: RevocationGenerations(user: .max, device: .max))
        let sealer = ResumeTicketSealer(keys: ResumeTicketKeys(now: now))
        let ticket = try #require(sealer.seal(sealed, now: now))
        #expect(ticket.ticket.readableBytes <= FrameLimits.maximumTicket)
        #expect(try sealer.open(ticket.ticket, now: now) == sealed)
    }

    // MARK: Sessions

    @Test func aSessionDoesWhatItsPatternsSayAlsoByTicket() async throws {
        try await withServer { server in
            let other = try await server.connected("bob")
            for (number, room) in [hall, team].enumerated() {
                _ = try await other.request(room, number: UInt64(number))
            }
            let scope = "join:room/* publish:room/team-* publish:user/bob receive:room/team-*"
            let first = try await connected(server, "ann", scope)
            for (number, room) in [hall, team].enumerated() {
                #expect(try await first.request(room, number: UInt64(number)).refusal == nil)
            }
            try await first.drop()
            let ann = try await server.device("ann", loop: 1)
            ann.producer = first.producer
            ann.connectNumber = 2
            let credential = Credential.ticket(try #require(first.ticket).ticket)
            let connected = try await ann.connect(credential: credential)
            #expect(connected.channels.map(\.channel) == [.room(team)])
            guard case .refused(let refused) = try await ann.publish("hi", to: .room(hall)) else {
                return #expect(Bool(false), "the hall is not in the scope")
            }
            #expect(refused.code == .forbidden)
            try await ann.publish("hi team", to: .room(team))
            #expect(try await other.text(.room(team)) == "hi team")
            try await ann.message("hi bob", to: bob)
            #expect(try await other.text(.user(bob)) == "hi bob")
            guard case .refused(let note) = try await ann.publish("note", to: .user(ann.user)) else {
                return #expect(Bool(false), "her own inbox is not in the scope")
            }
            #expect(note.code == .forbidden)
        }
    }

    @Test func aFreshTokenStopsOneChannelAndBeginsAnotherWithoutAGapOrARepetition() async throws {
        try await withServer { server in
            let other = try await server.connected("bob", loop: 1)
            let ann = try await connected(server, "ann", "join publish receive:room/hall receive:user/*")
            for (number, room) in [hall, team].enumerated() {
                for device in [other, ann] { _ = try await device.request(room, number: UInt64(number)) }
            }
            func say(_ text: String) async throws {
                for room in [hall, team] { try await other.publish("\(text) \(room)", to: .room(room)) }
                try await other.message(text, to: ann.user)
            }
            try await say("1")
            #expect(try await ann.text(.room(hall)) == "1 hall")
            #expect(try await ann.text(.user(ann.user)) == "1")
            try await refresh(ann, try await token(server, "ann", "join publish receive:room/team-* receive:user/*"))
            let stopped = try await ann.next { if case .stopped(let stopped) = $0 { stopped.channel } else { nil } }
            #expect(stopped == .room(hall))
            try await say("2")
            // What was said before the right came, while the user was a member, comes too.
            for text in ["1", "2"] { #expect(try await ann.text(.room(team)) == "\(text) team-7") }
            #expect(try await ann.text(.user(ann.user)) == "2")
            #expect(ann.untaken(.room(hall)).allSatisfy { $0.entry.kind != .message })
            try await refresh(ann, try await token(server, "ann", "join publish receive"))
            try await say("3")
            for text in ["2", "3"] { #expect(try await ann.text(.room(hall)) == "\(text) hall") }
            #expect(try await ann.text(.room(team)) == "3 team-7")
            #expect(try await ann.text(.user(ann.user)) == "3")
        }
    }
}
