import FoundationEssentials
import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

/// The whole server on loopback: QUIC, sessions, SQLite.
@Suite(.serialized, .timeLimit(.minutes(2))) struct EndToEndTests {
    /// A server in a folder of its own, and what devices need to reach it.
    private struct Site {
        let server: LonglineServer
        let issuer: TokenIssuer
        let connector: QUICLinkConnector
        let identity: ServerDirectory.DevelopmentIdentity

        func device(_ user: String, _ name: String = "phone") async throws -> TestDevice {
            let address = try #require(server.addresses.first)
            let (said, continuation) = AsyncStream.makeStream(of: ServerSaid.self)
            let target = QUICLinkTarget(
                host: try #require(address.ipAddress), port: try #require(address.port), serverName: "localhost",
                verification: .pinnedPublicKey(sha256: [identity.pin]))
            let wire = try await QUICWire(connector: connector, target: target, said: continuation)
            return TestDevice(
                user: try UserID(user), device: try DeviceID(name), issuer: issuer, wire: wire, said: said)
        }

        func connected(_ user: String, _ name: String = "phone") async throws -> TestDevice {
            let device = try await device(user, name)
            _ = try await device.connect()
            return device
        }
    }

    private func withFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "longline-\(UInt64.random(in: 0 ... .max))", directoryHint: .notDirectory
        ).path
        do { try await body(folder) } catch {
            try? FileManager.default.removeItem(atPath: folder)
            throw error
        }
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func withSite(
        _ folder: String, issuer: TokenIssuer, storeLimit: Int? = nil, keySources: [any TokenKeySource] = [],
        acceptsOldCredentials: Bool = false,
        _ body: (Site) async throws -> Void
    ) async throws {
        let directory = try ServerDirectory(folder)
        let identity = try directory.developmentIdentity(names: ["localhost", "127.0.0.1"])
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        var store = SQLiteStoreConfiguration(directory: directory.storePath, logger: silent)
        store.maximumSize = storeLimit
        var configuration = LonglineServer.Configuration(
            store: .sqlite(store), certificate: { identity.credentials }, tokenKeys: [issuer.key.verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        if !keySources.isEmpty { configuration.tokenKeys = [] }
        configuration.tokenKeySources = keySources
        configuration.secrets = try directory.secrets()
        configuration.controlSocketPath = directory.controlSocketPath
        configuration.acceptsCredentialsFromBeforeRestore = acceptsOldCredentials
        configuration.eventLoops = 2
        configuration.tenants = [TokenIssuer.tenant]
        configuration.logger = silent
        configuration.limits.drainTimeout = .seconds(3)
        try await serve(configuration, issuer, identity, body)
    }

    private func serve(
        _ configuration: LonglineServer.Configuration, _ issuer: TokenIssuer,
        _ identity: ServerDirectory.DevelopmentIdentity, _ body: (Site) async throws -> Void
    ) async throws {
        let silent = configuration.logger
        let server = LonglineServer(configuration: configuration)
        try await server.start()
        let connector = QUICLinkConnector(logger: silent)
        let site = Site(server: server, issuer: issuer, connector: connector, identity: identity)
        do { try await body(site) } catch {
            await connector.shutdownGracefully()
            await server.shutdown()
            throw error
        }
        await connector.shutdownGracefully()
        await server.shutdown()
    }

    @Test func devicesTalkAndOfflineMessagesWait() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.connected("ann", "phone")
                let tablet = try await site.connected("ann", "tablet")
                for index in 0..<50 { try await phone.message("m\(index)", to: bob) }
                let other = try await site.connected("bob")
                for index in 0..<50 {
                    #expect(try await other.text(.user(bob)) == "m\(index)")
                    #expect(try await tablet.text(.user(ann)) == "m\(index)")
                }
                for (number, member) in [phone, tablet, other].enumerated() where member !== tablet {
                    _ = try await member.request(hall, number: UInt64(number + 1))
                }
                try await other.publish("to the room", to: .room(hall))
                for member in [phone, tablet, other] { #expect(try await member.text(.room(hall)) == "to the room") }
            }
        }
    }

    @Test func aRestartKeepsWhatWasAcknowledgedAndTheTickets() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            var ticket: Ticket?
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.connected("ann")
                try await phone.message("before the restart", to: bob)
                ticket = phone.ticket
            }
            try await withSite(folder, issuer: issuer) { site in
                let other = try await site.connected("bob")
                #expect(try await other.text(.user(bob)) == "before the restart")
                let phone = try await site.device("ann")
                _ = try await phone.connect(credential: .ticket(try #require(ticket).ticket))
            }
        }
    }

    /// The restored store does not know what was revoked since its backup.
    @Test func aRestoredServerTakesNoCredentialsFromBefore() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            let old = try await issuer.token("ann", "phone")
            // Of a signer whose clock is ahead, within the skew of 30 s.
            let ahead = try await issuer.token("ann", "phone", age: -20_000)
            var ticket: Ticket?
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.device("ann")
                _ = try await phone.connect(credential: .token(old))
                try await phone.message("before", to: bob)
                ticket = phone.ticket
            }
            let sealed = Credential.ticket(try #require(ticket).ticket)
            try FileManager.default.removeItem(
                atPath: try ServerDirectory(folder).storePath + "/store.identity")
            // As long as it is the same store: at its first start, and later ones.
            for _ in 0..<2 {
                try await withSite(folder, issuer: issuer) { site in
                    for (credential, code) in [
                        (Credential.token(old), CloseCode.credentialRevoked), (.token(ahead), .credentialRevoked),
                        (sealed, .ticketRejected),
                    ] {
                        let device = try await site.device("ann")
                        try await device.send([(device.connectFrame(credential), .control)])
                        #expect(try await device.closed() == code)
                    }
                    let phone = try await site.device("ann")
                    _ = try await phone.connect(
                        credential: .token(try await issuer.token("ann", "phone", age: -30_000)))
                    try await phone.send([(.refresh(Refresh(token: old)), .control)])
                    #expect(try await phone.closed() == .credentialRevoked)
                    let again = try await site.device("ann")
                    _ = try await again.connect(credential: .ticket(try #require(phone.ticket).ticket))
                }
            }
            try await withSite(folder, issuer: issuer, acceptsOldCredentials: true) { site in
                for credential in [.token(old), sealed] {
                    let phone = try await site.device("ann")
                    _ = try await phone.connect(credential: credential)
                }
            }
        }
    }

    @Test func badCredentialsComeBackAsTheLinksCloseCode() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer) { site in
                let stranger = try await TokenIssuer()
                let elsewhere = try TenantID("elsewhere")
                let cases: [(String, CloseCode)] = [
                    (try await stranger.token("ann", "phone"), .credentialInvalid),
                    (try await issuer.token("ann", "phone", lifetime: -60_000), .credentialExpired),
                    (try await issuer.token("ann", "phone", tenant: elsewhere), .forbidden),
                ]
                for (token, code) in cases {
                    let device = try await site.device("ann")
                    try await device.send([(device.connectFrame(.token(token)), .control)])
                    #expect(try await device.closed() == code)
                }
            }
        }
    }

    @Test func aFullStoreRefusesAndGoesOnReading() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer, storeLimit: 1024 * 1024) { site in
                let phone = try await site.connected("ann")
                let text = String(repeating: "x", count: 10_000)
                var entered = 0
                var refusal: Refused?
                while refusal == nil, entered < 500 {
                    switch try await phone.message(text, to: bob) {
                    case .published: entered += 1
                    case .refused(let refused): refusal = refused
                    }
                }
                #expect(refusal?.code == .storageFull)
                #expect((refusal?.retryAfter ?? 0) > 0)
                let other = try await site.connected("bob")
                for _ in 0..<min(entered, 20) { #expect(try await other.text(.user(bob)).utf8.count == 10_000) }
            }
        }
    }

    @Test func shutdownTellsTheClientsToComeBack() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.connected("ann")
                await site.server.shutdown()
                let close = try await phone.next { if case .close(let close) = $0 { close } else { nil } }
                #expect(close.code == .shuttingDown)
                #expect(try await phone.closed() == .shuttingDown)
                #expect(!site.server.isRunning)
            }
        }
    }

    @Test func anOperatorsProcessShutsSomebodyOut() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.connected("ann", "phone")
                let tablet = try await site.connected("ann", "tablet")
                let control = try ServerDirectory(folder).control()
                let key = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: phone.device)
                try await control.revoke(device: key)
                #expect(try await phone.closed() == .credentialRevoked)
                #expect(try await control.generations(of: key) == RevocationGenerations(user: 0, device: 1))
                try await tablet.message("still here", to: bob)
                try await control.revoke(user: ann, in: TokenIssuer.tenant)
                #expect(try await tablet.closed() == .credentialRevoked)
                #expect(try await control.generations(of: key) == RevocationGenerations(user: 1, device: 1))
            }
            // It outlives the server: an old token is void, a new one with the present generations is good.
            try await withSite(folder, issuer: issuer) { site in
                let phone = try await site.device("ann")
                let old = try await issuer.token("ann", "phone")
                try await phone.send([(phone.connectFrame(.token(old)), .control)])
                #expect(try await phone.closed() == .credentialRevoked)
                let again = try await site.device("ann")
                let generations = RevocationGenerations(user: 1, device: 1)
                let fresh = try await issuer.token("ann", "phone", login: 2, generations: generations)
                _ = try await again.connect(credential: .token(fresh))
            }
        }
    }

    /// The site's keys come from a file that is replaced while sessions are up.
    @Test func keysAreReplacedWhileTheServerRuns() async throws {
        try await withFolder { folder in
            let (first, second) = (try await TokenIssuer(), try await TokenIssuer())
            let path = folder + "/keys.json"
            func publish(_ issuers: [TokenIssuer]) throws {
                let set = JSONWebKeySet(keys: issuers.map(\.key.verificationKey))
                try Data(set.json).write(to: URL(fileURLWithPath: path), options: .atomic)
            }
            _ = try ServerDirectory(folder)
            try publish([first])
            try await withSite(folder, issuer: first, keySources: [KeySetFile(path: path)]) { site in
                let control = try ServerDirectory(folder).control()
                let phone = try await site.connected("ann", "phone")
                try publish([second, first])
                try await control.reloadTokenKeys()
                let tablet = try await site.device("ann", "tablet")
                _ = try await tablet.connect(credential: .token(try await second.token("ann", "tablet")))
                try publish([second])
                try await site.server.reloadTokenKeys()
                try await phone.message("still here", to: bob)
                let late = try await site.device("bob")
                try await late.send([(late.connectFrame(.token(try await first.token("bob", "phone"))), .control)])
                #expect(try await late.closed() == .credentialInvalid)
                try Data("{".utf8).write(to: URL(fileURLWithPath: path))
                await #expect { try await control.reloadTokenKeys() } throws: {
                    ($0 as? ServerError)?.code == .requestFailed && "\($0)".contains("JSON")
                }
                let other = try await site.device("bob")
                _ = try await other.connect(credential: .token(try await second.token("bob", "phone")))
                #expect(try await other.text(.user(bob)) == "still here")
            }
        }
    }

    /// A server that is set up as the README shows goes by its folder's keys.
    @Test func aFoldersKeyThatIsRotatedIsVoidAtOnce() async throws {
        try await withFolder { folder in
            let directory = try ServerDirectory(folder)
            let identity = try directory.developmentIdentity(names: ["localhost"])
            var configuration = try LonglineServer.Configuration(
                directory: directory, certificate: { identity.credentials },
                addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
            configuration.tenants = [TokenIssuer.tenant]
            configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            configuration.eventLoops = 1
            configuration.limits.drainTimeout = .seconds(3)
            func token(_ device: String) async throws -> String {
                try await directory.sign(
                    tenant: TokenIssuer.tenant, user: ann, device: try DeviceID(device), lifetime: 3_600_000)
            }
            let stolen = try await token("thief")
            try await serve(configuration, try await TokenIssuer(), identity) { site in
                let phone = try await site.device("ann")
                _ = try await phone.connect(credential: .token(try await token("phone")))
                try await directory.rotateSigningKey(keep: 0)
                try await directory.control().reloadTokenKeys()
                let thief = try await site.device("ann", "thief")
                try await thief.send([(thief.connectFrame(.token(stolen)), .control)])
                #expect(try await thief.closed() == .credentialInvalid)
                let tablet = try await site.device("ann", "tablet")
                _ = try await tablet.connect(credential: .token(try await token("tablet")))
            }
        }
    }

    /// The keys of an address that sometimes does not answer.
    private final class SlowKeys: TokenKeySource {
        let name = "slow"
        let trusted: [VerificationKey]
        let isHanging = Atomic(false)
        private let gate: AsyncStream<Void>
        let opener: AsyncStream<Void>.Continuation

        init(_ trusted: [VerificationKey]) {
            self.trusted = trusted
            (gate, opener) = AsyncStream.makeStream()
        }

        func keys() async throws -> [VerificationKey] {
            if isHanging.load(ordering: .relaxed) { for await _ in gate {} }
            return trusted
        }
    }

    @Test func anOperatorIsToldThatASourceOfKeysDoesNotAnswer() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            let source = SlowKeys([issuer.key.verificationKey])
            try await withSite(folder, issuer: issuer, keySources: [source]) { site in
                let request = ControlRequest(operation: .reloadKeys)
                #expect(await site.server.answer(request).error == nil)
                source.isHanging.store(true, ordering: .relaxed)
                let answer = await site.server.answer(request, within: .milliseconds(10))
                #expect(answer.error?.contains("has not answered yet") == true)
                source.opener.finish()
                #expect(await site.server.answer(request).error == nil)
            }
        }
    }

    @Test func twoServersCanNotShareAStoreOrAPort() async throws {
        try await withFolder { folder in
            let issuer = try await TokenIssuer()
            try await withSite(folder, issuer: issuer) { site in
                let second = LonglineServer(configuration: site.server.configuration)
                await #expect {
                    try await second.start()
                } throws: { ($0 as? ServerError)?.code == .storeUnavailable }
                var configuration = site.server.configuration
                configuration.store = .shared(InMemoryStore())
                configuration.addresses = site.server.addresses
                let third = LonglineServer(configuration: configuration)
                let error = await #expect(throws: ServerError.self) { try await third.start() }
                #expect(error?.code == .addressUnavailable)
                // The system's words, without those of the network library around them.
                #expect(error?.description.contains(": Address already in use (choose") == true)
            }
        }
    }
}
