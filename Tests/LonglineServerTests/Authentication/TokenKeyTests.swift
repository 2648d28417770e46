import Foundation
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import LonglineServer

/// Keys that change while a server runs: files, addresses, rotation with overlap.
@Suite(.timeLimit(.minutes(1))) struct TokenKeyTests {
    private func write(_ keys: [VerificationKey], to path: String) throws {
        try Data(JSONWebKeySet(keys: keys).json).write(to: URL(fileURLWithPath: path), options: .atomic)
    }

    private func keyring(_ sources: [any TokenKeySource], log: LogRecorder = LogRecorder()) -> TokenKeyring {
        TokenKeyring(fixed: [], sources: sources, logger: log.logger) { await TokenVerifier(keys: $0, tenants: nil) }
    }

    private func authenticator(_ keyring: TokenKeyring) async throws -> Authenticator {
        Authenticator(
            verifier: try await keyring.start(), tickets: ResumeTicketSealer(keys: ResumeTicketKeys(now: now)),
            revocations: FakeRevocations(), logger: LogRecorder().logger)
    }

    // MARK: A file that changes

    @Test func keysRotateWithOverlapAndAnOldKeyTakesItsTicketsAlong() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/keys.json"
            let (old, new) = (SigningKey.generate(.edDSA), SigningKey.generate(.es256))
            let tokens = [
                try await TokenSigner(key: old).sign(try goodClaims()),
                try await TokenSigner(key: new).sign(try goodClaims()),
            ]
            try write([old.verificationKey], to: path)
            let keyring = keyring([KeySetFile(path: path)])
            let authenticator = try await authenticator(keyring)
            func failures() async throws -> [AuthenticationError.Code?] {
                var codes: [AuthenticationError.Code?] = []
                for token in tokens {
                    codes.append(
                        try await authenticationFailure {
                            _ = try await authenticator.authenticate(.token(token), now: now)
                        })
                }
                return codes
            }
            #expect(try await failures() == [nil, .keyUnknown])
            let session = try await authenticator.authenticate(.token(tokens[0]), now: now)
            let ticket = try #require(authenticator.tickets.seal(session, now: now)).ticket

            try write([new.verificationKey, old.verificationKey], to: path)
            #expect(await keyring.reload(authenticator) == nil)
            #expect(try await failures() == [nil, nil])
            _ = try await authenticator.authenticate(.ticket(ticket), now: now)

            try write([new.verificationKey], to: path)
            #expect(await keyring.reload(authenticator) == nil)
            #expect(try await failures() == [.keyUnknown, nil])
            #expect(
                try await authenticationFailure {
                    _ = try await authenticator.authenticate(.ticket(ticket), now: now)
                } == .ticketRejected)
            let refreshed = try await authenticationFailure {
                _ = try await authenticator.refresh(tokens[0], of: session.identity, now: now)
            }
            #expect(refreshed == .keyUnknown)
        }
    }

    /// A source that answers when it is let, and heeds no cancellation.
    private final class HangingSource: TokenKeySource {
        let name = "hanging"
        let asked = Mutex(0)
        private let key: VerificationKey
        private let waiting = Mutex<[CheckedContinuation<Void, Never>]>([])
        private let hangs = Mutex(false)

        init(_ key: VerificationKey) { self.key = key }

        func hang() { hangs.withLock { $0 = true } }

        func release() {
            hangs.withLock { $0 = false }
            for continuation in waiting.withLock({ $0 }) { continuation.resume() }
            waiting.withLock { $0 = [] }
        }

        func keys() async throws -> [VerificationKey] {
            asked.withLock { $0 += 1 }
            if hangs.withLock({ $0 }) {
                await withCheckedContinuation { continuation in waiting.withLock { $0.append(continuation) } }
            }
            return [key]
        }
    }

    @Test func aSourceThatHangsHoldsUpNoOther() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/keys.json"
            let (old, new) = (SigningKey.generate(.edDSA), SigningKey.generate(.edDSA))
            let hanging = HangingSource(SigningKey.generate(.es256).verificationKey)
            try write([old.verificationKey], to: path)
            let keyring = TokenKeyring(
                fixed: [], sources: [hanging, KeySetFile(path: path)], deadline: .seconds(2),
                logger: LogRecorder().logger
            ) { await TokenVerifier(keys: $0, tenants: nil) }
            let authenticator = try await authenticator(keyring)
            let token = try await TokenSigner(key: new).sign(try goodClaims())
            func isGood() async throws -> Bool {
                try await authenticationFailure { _ = try await authenticator.authenticate(.token(token), now: now) }
                    == nil
            }
            #expect(try await !isGood())
            hanging.hang()
            try write([new.verificationKey], to: path)
            for _ in 0..<3 { #expect(await keyring.reload(authenticator) != nil) }
            #expect(try await isGood())
            // It is asked again once it answered.
            #expect(hanging.asked.withLock { $0 } == 2)
            hanging.release()
            while await keyring.reload(authenticator) != nil { await Task.yield() }
            #expect(hanging.asked.withLock { $0 } >= 3)
        }
    }

    /// Counts how often it is asked.
    private final class CountingSource: TokenKeySource {
        let name = "counting"
        let interval: Duration
        let asked: AsyncStream<Void>
        private let key = SigningKey.generate(.edDSA).verificationKey
        private let count = Mutex(0)
        private let continuation: AsyncStream<Void>.Continuation

        init(every interval: Duration) {
            self.interval = interval
            (asked, continuation) = AsyncStream.makeStream()
        }

        var times: Int { count.withLock { $0 } }

        func keys() async throws -> [VerificationKey] {
            count.withLock { $0 += 1 }
            continuation.yield()
            return [key]
        }
    }

    @Test func eachSourceIsAskedAsOftenAsItSaysUnlessOneIntervalIsForAll() async throws {
        #expect(KeySetFile(path: "/keys.json").interval == .seconds(5))
        #expect(try KeySetAddress(url: "https://id.example.com/keys.json").interval == .seconds(60))
        let (often, seldom) = (CountingSource(every: .milliseconds(1)), CountingSource(every: .seconds(86_400)))
        let keyring = keyring([seldom, often])
        let authenticator = try await authenticator(keyring)
        func run(every interval: Duration?, until source: CountingSource) async {
            let task = Task { await keyring.run(every: interval, authenticator) }
            let most = source.times + 3
            for await _ in source.asked where source.times >= most { break }
            task.cancel()
            await task.value
        }
        await run(every: nil, until: often)
        #expect(seldom.times == 1, "at the start")
        await run(every: .milliseconds(1), until: seldom)
    }

    // MARK: An address

    @Test func aSetIsFetchedFromAnAddress() async throws {
        let key = SigningKey.generate(.es256).verificationKey
        let set = String(decoding: JSONWebKeySet(keys: [key]).json, as: UTF8.self)
        let answer = Mutex(Backend.Response.json(set))
        let backend = try await Backend { _ in answer.withLock { $0 } }
        let source = try KeySetAddress(url: "http://127.0.0.1:\(backend.port)/keys.json")
        for _ in 0..<2 { #expect(try await source.keys().map(\.pem) == [key.pem]) }
        #expect(backend.requests.map(\.uri) == ["/keys.json", "/keys.json"])
        #expect(backend.requests.allSatisfy { $0.method == .GET && $0.body.isEmpty })
        for bad in [
            Backend.Response(status: .found, body: set, headers: ["location": "/elsewhere"]),
            Backend.Response(status: .internalServerError, body: set), .json("{}"),
            .json(set + String(repeating: " ", count: 64 << 10)),
        ] {
            answer.withLock { $0 = bad }
            await #expect(throws: (any Error).self) { try await source.keys() }
        }
        try await backend.stop()
        await #expect(throws: (any Error).self) { try await source.keys() }
        #expect(throws: ServerError.self) { try KeySetAddress(url: "ftp://127.0.0.1/keys.json") }
    }

    @Test func anAddressIsNamedWithoutItsQuery() throws {
        for (url, name) in [
            ("https://x:1/keys.json?token=secret", "https://x:1/keys.json"), ("http://[::1]", "http://[::1]/"),
        ] {
            let source = try KeySetAddress(url: url)
            #expect(source.name == name && source.url == url)
        }
    }

    @Test func aBadFileKeepsTheOldKeysAndIsLoggedOnce() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/keys.json"
            let (key, next) = (SigningKey.generate(.edDSA), SigningKey.generate(.edDSA))
            try write([key.verificationKey], to: path)
            let log = LogRecorder()
            let keyring = keyring([KeySetFile(path: path)], log: log)
            let authenticator = try await authenticator(keyring)
            let token = try await TokenSigner(key: key).sign(try goodClaims())
            func isGood() async throws -> Bool {
                try await authenticationFailure { _ = try await authenticator.authenticate(.token(token), now: now) }
                    == nil
            }
            try Data("{".utf8).write(to: URL(fileURLWithPath: path))
            for _ in 0..<3 { #expect(await keyring.reload(authenticator) != nil) }
            let (failed, failing) = (await keyring.failed, await keyring.failing)
            #expect(failed == 3 && failing == 1)
            #expect(try await isGood())
            try FileManager.default.removeItem(atPath: path)
            for _ in 0..<3 { #expect(await keyring.reload(authenticator) != nil) }
            #expect(try await isGood())
            #expect(log.lines.count { $0.contains("not reloaded") } == 2, "\(log.lines)")
            try write([next.verificationKey], to: path)
            #expect(await keyring.reload(authenticator) == nil)
            #expect(await keyring.failing == 0)
            #expect(try await !isGood())
            #expect(log.lines.contains { $0.contains("token keys changed") && $0.contains(next.keyID) })
        }
    }

    @Test func oneSourceThatFailsDoesNotTakeTheOthersAlong() async throws {
        try await withTemporaryDirectory { folder in
            let keys = (0..<3).map { _ in SigningKey.generate(.edDSA) }
            let paths = [folder + "/a.json", folder + "/b.json"]
            for (key, path) in zip(keys, paths) { try write([key.verificationKey], to: path) }
            let keyring = keyring(paths.map { KeySetFile(path: $0) })
            let authenticator = try await authenticator(keyring)
            try Data("{".utf8).write(to: URL(fileURLWithPath: paths[0]))
            try write([keys[2].verificationKey], to: paths[1])
            #expect(await keyring.reload(authenticator) != nil)
            for (key, expected) in zip(keys, [nil, AuthenticationError.Code.keyUnknown, nil]) {
                let token = try await TokenSigner(key: key).sign(try goodClaims())
                let failure = try await authenticationFailure {
                    _ = try await authenticator.authenticate(.token(token), now: now)
                }
                #expect(failure == expected)
            }
        }
    }

    @Test func aSourceThatFailsAtTheStartFailsTheStart() async throws {
        let keyring = keyring([KeySetFile(path: "/nonexistent/keys.json")])
        #expect(try await authenticationFailure { _ = try await keyring.start() } == .keyUnusable)
    }

    // MARK: A folder's own keys

    @Test func aNewKeyIsTrustedBeforeItSigns() async throws {
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let first = try directory.signingKey().keyID
            #expect(try directory.trustedKeys().map(\.keyID) == [first])
            let between = Mutex<(trusted: [String], signs: String)?>(nil)
            let second = try await directory.rotateSigningKey {
                let seen = (try directory.trustedKeys().map(\.keyID), try directory.signingKey().keyID)
                between.withLock { $0 = seen }
            }.keyID
            let seen = try #require(between.withLock { $0 })
            #expect(seen.trusted == [second, first] && seen.signs == first)
            #expect(try directory.signingKey().keyID == second)
            #expect(try directory.trustedKeys().map(\.keyID) == [second, first])
            let third = try await directory.rotateSigningKey(algorithm: .es256).keyID
            #expect(try directory.trustedKeys().map(\.keyID) == [third, second])
            #expect(try directory.removeTrustedKey(second))
            #expect(try !directory.removeTrustedKey(second))
            #expect(try directory.trustedKeys().map(\.keyID) == [third])
            #expect(try await authenticationFailure { try directory.removeTrustedKey(third) } == .keyUnusable)
            let fourth = try await directory.rotateSigningKey(keep: 0).keyID
            #expect(try directory.trustedKeys().map(\.keyID) == [fourth])
        }
    }

    @Test func aServerThatCanNotBeToldKeepsTheOldSigner() async throws {
        struct Deaf: Error {}
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let first = try directory.signingKey().keyID
            await #expect(throws: Deaf.self) { try await directory.rotateSigningKey { throw Deaf() } }
            #expect(try directory.signingKey().keyID == first)
            #expect(try directory.trustedKeys().contains { $0.keyID == first })
            // Once more, and it works: what was signed until now is good on.
            let next = try #require(try directory.nextSigningKey()?.keyID)
            #expect(try await directory.rotateSigningKey().keyID == next)
            #expect(try directory.trustedKeys().map(\.keyID) == [next, first])
        }
    }

    /// Whoever replaces a key that was stolen must not depend on an address that does not answer.
    @Test func theFoldersKeysAreReadThoughAnotherSourceHangs() async throws {
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let hanging = HangingSource(SigningKey.generate(.es256).verificationKey)
            let keyring = TokenKeyring(
                fixed: [], sources: [hanging, directory.tokenKeySource], deadline: .seconds(3_600),
                logger: LogRecorder().logger
            ) { await TokenVerifier(keys: $0, tenants: nil) }
            let authenticator = try await authenticator(keyring)
            let stolen = try await TokenSigner(key: directory.signingKey()).sign(try goodClaims())
            hanging.hang()
            let everything = Task { await keyring.reload(authenticator) }
            while hanging.asked.withLock({ $0 }) == 1 { await Task.yield() }
            let fresh = try await TokenSigner(key: directory.rotateSigningKey(keep: 0)).sign(try goodClaims())
            #expect(await keyring.reload(authenticator, onlyFolder: true) == nil)
            func failures() async throws -> [AuthenticationError.Code?] {
                var codes: [AuthenticationError.Code?] = []
                for token in [stolen, fresh] {
                    codes.append(
                        try await authenticationFailure {
                            _ = try await authenticator.authenticate(.token(token), now: now)
                        })
                }
                return codes
            }
            #expect(try await failures() == [.keyUnknown, nil])
            hanging.release()
            #expect(await everything.value == nil)
            #expect(try await failures() == [.keyUnknown, nil])
        }
    }

    @Test func aPreparedKeyIsTrustedLongBeforeItSigns() async throws {
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let first = try directory.signingKey().keyID
            let told = Mutex(0)
            let next = try await directory.prepareSigningKey(algorithm: .es256) { told.withLock { $0 += 1 } }.keyID
            #expect(try directory.trustedKeys().map(\.keyID) == [next, first] && told.withLock { $0 } == 1)
            #expect(try directory.signingKey().keyID == first && directory.nextSigningKey()?.keyID == next)
            // Asked again, it is the same key.
            #expect(try await directory.prepareSigningKey().keyID == next)
            #expect(try directory.trustedKeys().map(\.keyID) == [next, first])
            #expect(try await directory.rotateSigningKey().keyID == next)
            #expect(try directory.signingKey().keyID == next && directory.nextSigningKey() == nil)
            #expect(try directory.trustedKeys().map(\.keyID) == [next, first])
            let third = try await directory.rotateSigningKey().keyID
            #expect(third != next && third != first)
        }
    }

    @Test func aPreparedKeyThatIsRemovedNeverSigns() async throws {
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let next = try await directory.prepareSigningKey().keyID
            #expect(try directory.removeTrustedKey(next))
            #expect(try directory.nextSigningKey() == nil)
            #expect(try await directory.rotateSigningKey().keyID != next)
            #expect(try !directory.trustedKeys().contains { $0.keyID == next })
        }
    }

    @Test func aRotationThatWasCutOffLeavesNothingBehind() async throws {
        try await withTemporaryDirectory { folder in
            let directory = try ServerDirectory(folder)
            let next = try await directory.prepareSigningKey()
            // The moment after the key signs, before its second file is gone.
            let pem = try Data(contentsOf: URL(fileURLWithPath: folder + "/token-next.key"))
            _ = try await directory.rotateSigningKey()
            let left = URL(fileURLWithPath: folder + "/token-next.key")
            try pem.write(to: left)
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: left.path)
            #expect(try directory.nextSigningKey() == nil)
            let third = try await directory.rotateSigningKey()
            #expect(third.keyID != next.keyID && FileManager.default.fileExists(atPath: left.path) == false)
        }
    }

    // MARK: Sessions

    @Test func aSessionOutlivesItsKeyAndNewConnectsDoNot() async throws {
        let server = try await TestServer()
        let phone = try await server.connected("ann")
        let next = SigningKey.generate(.edDSA)
        let core = server.runtime.core
        core.authenticator.replaceVerifier(await TokenVerifier(keys: [next.verificationKey], tenants: nil))
        guard case .published = try await phone.message("still here", to: phone.user) else {
            return #expect(Bool(false), "the session ended with its key")
        }
        let cases: [(Credential, CloseCode)] = [
            (.token(try await server.issuer.token("ann", "phone")), .credentialInvalid),
            (.ticket(try #require(phone.ticket).ticket), .ticketRejected),
        ]
        for (credential, code) in cases {
            let again = try await server.device("ann", loop: 1)
            try await again.send([(again.connectFrame(credential), .control)])
            #expect(try await again.closed() == code)
        }
        await server.stop()
    }

    // MARK: Clocks

    @Test(arguments: [UInt64(0), 5_000, 30_000]) func clocksMayDifferByTheSkewAndNoMore(skew: UInt64) async throws {
        let key = SigningKey.generate(.edDSA)
        let verifier = await TokenVerifier(keys: [key.verificationKey], tenants: nil, clockSkew: skew)
        let hour: UInt64 = 3_600_000
        func failure(issuedAt: UInt64, notBefore: UInt64? = nil, expiry: UInt64, at time: UInt64) async throws
            -> AuthenticationError.Code?
        {
            var claims = try goodClaims()
            (claims.issuedAt, claims.notBefore, claims.expiry) = (issuedAt, notBefore ?? issuedAt, expiry)
            let token = try await TokenSigner(key: key).sign(claims)
            return try await authenticationFailure { _ = try await verifier.verify(token, now: time) }
        }
        // From a signer whose clock is ahead: by the skew, and by a millisecond more.
        #expect(try await failure(issuedAt: now, expiry: now + hour, at: now - skew) == nil)
        #expect(try await failure(issuedAt: now, expiry: now + hour, at: now - skew - 1) == .notYetValid)
        // A token for later than it was issued.
        let later = now + hour
        #expect(
            try await failure(issuedAt: now, notBefore: later, expiry: later + hour, at: later - skew) == nil)
        #expect(
            try await failure(issuedAt: now, notBefore: later, expiry: later + hour, at: later - skew - 1)
                == .notYetValid)
        // Over: at its end the skew begins, and with it ends.
        #expect(
            try await failure(issuedAt: now - hour, expiry: now, at: now + skew - (skew > 0 ? 1 : 0))
                == (skew > 0 ? nil : .expired))
        #expect(try await failure(issuedAt: now - hour, expiry: now, at: now - 1) == nil)
        #expect(try await failure(issuedAt: now - hour, expiry: now, at: now + skew) == .expired)
    }

    @Test func theServersSkewIsConfiguredWithinBounds() async throws {
        var configuration = LonglineServer.Configuration(
            store: .shared(InMemoryStore()), certificate: { throw CancellationError() },
            tokenKeys: [SigningKey.generate(.edDSA).verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        #expect(configuration.tokenClockSkew == .seconds(30))
        for skew in [TimeAmount.zero, .seconds(30), .hours(1)] {
            configuration.tokenClockSkew = skew
            try configuration.validate()
        }
        for skew in [TimeAmount.milliseconds(-1), .hours(1) + .milliseconds(1)] {
            configuration.tokenClockSkew = skew
            #expect(throws: ServerError.self) { try configuration.validate() }
        }
    }
}
