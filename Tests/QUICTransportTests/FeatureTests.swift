import Foundation
import Logging
import LonglineTestKit
import Metrics
import MetricsTestKit
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import QUICEngine
@testable import QUICTransport

@Suite("What an application can ask for", .timeLimit(.minutes(1)))
struct FeatureTests {
    private static let reserved = QUICVersion(rawValue: 0x5a6a_7a8a)

    @Test("A client whose version is refused goes on with one the server speaks, without a word to the application")
    func versionNegotiation() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.versions = [Self.reserved, .v1]
            let connection = try await client.connect(to: listener, configuration, on: loop)
            #expect(try await connection.handshake().version == .v1)
            try await connection.roundTrip()
            #expect(await listener.counters().engine.versionNegotiationsSent == 1)
        }
    }

    @Test("Both sides export the same secret and update keys on request")
    func keys() async throws {
        let theirs = Mailbox<[UInt8]>(limit: 1, policy: .refuse)
        try await withPair { connection in
            theirs.put(try await connection.exportKeyingMaterial(label: "EXPORTER-test", context: [1], count: 32))
            try await echo(connection)
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let ours = try await connection.exportKeyingMaterial(label: "EXPORTER-test", context: [1], count: 32)
            #expect(try await theirs.next() == ours)
            try await connection.roundTrip()
            // The handshake may be confirmed a little later.
            while await !connection.requestKeyUpdate() { try await connection.roundTrip() }
            try await connection.roundTrip()
            #expect(await connection.statistics()?.keyUpdates == 1)
            connection.close()
            _ = try await connection.closed()
            await #expect(throws: QUICTransportError.self) {
                try await connection.exportKeyingMaterial(label: "x", count: 1)
            }
        }
    }

    @Test("Traces of both sides lie in files that name the connection, bounded in size and number")
    func qlog() async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("longline-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let traces = try QLogDirectory(path: path, maxFileSize: 20_000, maxFiles: 3)
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.qlog = traces.log
        let seen = Mutex<String?>(nil)
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.qlog = traces.log
            for round in 0..<3 {
                let connection = try await client.connect(to: listener, configuration, on: loop)
                if round == 0 {
                    let metadata = await connection.logMetadata()
                    #expect(metadata["quic.role"] == "client")
                    seen.withLock { $0 = metadata["quic.connection"].map { "\($0)" } }
                }
                let stream = try await connection.openStream()
                try await stream.send(pattern(200_000))
                #expect(try await stream.collect().count == 200_000)
                connection.close()
                _ = try await connection.closed()
            }
        }
        let id = try #require(seen.withLock { $0 })
        let files = try FileManager.default.contentsOfDirectory(atPath: path)
        #expect(files.count == 3)
        #expect(files.contains("\(id)_client.sqlog") && files.contains("\(id)_server.sqlog"))
        for file in files {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(path)/\(file)"))
            #expect(bytes.count <= 20_000 && bytes.count > 1000)
            for record in bytes.split(separator: 0x1e) {
                #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: record) }
            }
        }
        #expect(throws: QUICTransportError.self) { try QLogDirectory(path: "/proc/none/here") }
    }

    @Test("A trace whose file can't be made takes no other's place")
    func qlogWithoutFile() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("longline-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let log = try QLogDirectory(path: path, maxFiles: 1).log
        func isWritten(_ id: UInt8) -> Bool { log(QLogSubject(originalDestinationID: [id], isServer: true)) != nil }
        #expect(FileManager.default.createFile(atPath: "\(path)/01_server.sqlog", contents: nil))
        #expect(!isWritten(1))
        #expect(isWritten(2))
        #expect(!isWritten(3))
    }

    @Test("Counters reach swift-metrics, by role")
    func metrics() async throws {
        let metrics = TestMetrics()
        var configuration = try serverConfiguration()
        configuration.metrics = metrics
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            for _ in 0..<3 { try await client.connect(to: listener, on: loop).roundTrip() }
            while await listener.counters().connections > 0 { try await Task.sleep(for: .milliseconds(5)) }
            while await listener.counters().bufferedBytes > 0 { try await Task.sleep(for: .milliseconds(5)) }
        }
        let role = [("role", "server")]
        #expect(try metrics.expectCounter("quic_handshakes_completed", role).totalValue == 3)
        #expect(try metrics.expectCounter("quic_bytes_received", role).totalValue > 3600)
        #expect(try metrics.expectCounter("quic_handshakes_failed", role).totalValue == 0)
        for name in [
            "sockets_rebound", "send_errors", "minimum_size_errors", "runs_dropped", "datagrams_from_refused_paths",
            "connections_refused_for_memory", "connections_ended_for_memory", "windows_withheld",
            "writes_withheld",
        ] {
            #expect(try metrics.expectCounter("quic_\(name)", role).totalValue == 0)
        }
        #expect(try (metrics.expectMeter("quic_buffered_bytes", role).values.last ?? 0) == 0)
        #expect(try (metrics.expectMeter("quic_connections", role).values.last ?? 0) == 0)
    }

    @Test("Log lines about a connection carry its ID and role, on both sides the same ID")
    func logging() async throws {
        let lines = RecordedLines()
        var configuration = try serverConfiguration()
        configuration.logger = lines.logger
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            let id = try #require(await connection.logMetadata()["quic.connection"])
            connection.close(code: 7, reason: "enough")
            _ = try await connection.closed()
            #expect(await connection.logMetadata().isEmpty)
            while !lines.lines.contains(where: { $0.message == "a connection closed" }) {
                try await Task.sleep(for: .milliseconds(5))
            }
            for message in ["a connection is established", "a connection closed"] {
                let line = try #require(lines.lines.first { $0.message == message })
                #expect(line.metadata["quic.connection"] == id)
                #expect(line.metadata["quic.role"] == "server")
            }
        }
    }

    @Test("A ticket that expires soon is renewed by a full handshake in the background, once")
    func renewal() async throws {
        let cache = InMemorySessionCache()
        let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: serverGroup)
        let serving = Task {
            try await withThrowingDiscardingTaskGroup { group in
                for try await connection in listener.connections { group.addTask { try? await echo(connection) } }
            }
        }
        // A ticket lives seven days: each is due already.
        let client = QUICClient(sessionCache: cache, ticketRenewal: .hours(24 * 8))
        let key = SessionCacheKey(serverName: "localhost", port: listener.port, applicationProtocol: protocolName)
        do {
            let first = try await client.connect(to: listener, on: clientGroup.next())
            try await first.roundTrip()
            while cache.session(for: key)?.ticket == nil { try await Task.sleep(for: .milliseconds(5)) }
            // The ticket of a full handshake is not renewed at once.
            try await first.roundTrip()
            #expect(await listener.counters().engine.handshakesCompleted == 1)
            first.close()

            let second = try await client.connect(to: listener, on: clientGroup.next())
            #expect(try await second.handshake().resumed)
            while await listener.counters().engine.handshakesCompleted < 3 { try await second.roundTrip() }
            second.close()
            // And not again for a while.
            let third = try await client.connect(to: listener, on: clientGroup.next())
            #expect(try await third.handshake().resumed)
            try await third.roundTrip()
            let counters = await listener.counters().engine
            #expect(counters.handshakesCompleted == 4)
            #expect(counters.handshakesResumed == 2)
            third.close()
        }
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        serving.cancel()
        _ = try? await serving.value
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
    }

    @Test("An application that keeps its tickets itself gets the renewed one from the connection it has")
    func renewalWithoutCache() async throws {
        let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: serverGroup)
        let client = QUICClient(ticketRenewal: .hours(24 * 8))
        let loop = clientGroup.next()
        let port = listener.port
        let tickets = Mailbox<SessionTicket>(limit: 8, policy: .refuse)
        @Sendable func connect(_ ticket: SessionTicket?) async throws {
            try await loop.submit {
                var configuration = clientConfiguration()
                configuration.sessionTicket = ticket
                _ = client.connect(
                    host: "127.0.0.1", port: port, configuration: configuration, on: loop,
                    handler: TicketCollector(tickets))
            }.get()
        }
        try await connect(nil)
        let first = try #require(try await tickets.next())
        try await connect(first)
        // The resumed session's own, then the renewed one, which lives longer or as long.
        let resumed = try #require(try await tickets.next())
        let renewed = try #require(try await tickets.next())
        #expect(renewed.expiresAt >= resumed.expiresAt)
        #expect(renewed != resumed && renewed != first)
        let counters = await listener.counters().engine
        #expect(counters.handshakesCompleted == 3)
        #expect(counters.handshakesResumed == 1)
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
    }

    @Test("A client shows its certificate, and gets the server's by name")
    func certificates() async throws {
        let identity = try DevelopmentCertificate.generate(names: ["device-1"], now: wallClock())
        let named = try DevelopmentCertificate.generate(names: ["other.test"], now: wallClock())
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.tls = try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: [protocolName],
            certificatesByName: ["other.test": named.credentials],
            clientAuthentication: .required(authorityPEM: identity.certificatePEM))
        let shown = Mailbox<Int>(limit: 4, policy: .refuse)
        try await withPair(configuration: configuration) { connection in
            shown.put(try await connection.handshake().peerCertificates.count)
            try await echo(connection)
        } body: { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.identity = identity.credentials
            configuration.serverName = "other.test"
            configuration.verification = .pinnedPublicKey(sha256: [named.publicKeySHA256])
            try await client.connect(to: listener, configuration, on: loop).roundTrip()
            #expect(try await shown.next() == 1)
            configuration.identity = nil
            guard case .peerTransport(let code, _) = try await client.refusal(by: listener, configuration, on: loop)
            else {
                Issue.record("not refused")
                return
            }
            #expect((0x100...0x1ff).contains(code), "a TLS alert")
        }
    }
}

/// Hands on the tickets of a connection.
private final class TicketCollector: QUICConnectionHandler {
    private let tickets: Mailbox<SessionTicket>

    init(_ tickets: Mailbox<SessionTicket>) { self.tickets = tickets }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .sessionTicket(let ticket) = event { tickets.put(ticket) }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
