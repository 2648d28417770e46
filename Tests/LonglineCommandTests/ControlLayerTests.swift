import ArgumentParser
import AsyncHTTPClient
import Foundation
import LonglineControl
import LonglineServer
import LonglineSettings
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOSSL
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("The control layer of the tool", .timeLimit(.minutes(2)))
struct ControlLayerTests {
    @Test("has what the transport counts among its figures")
    func transportFigures() async throws {
        let folder = try TemporaryFolder()
        let server = try ToolProcess([
            "server", "--data", "\(folder.path)/data", "--port", "0", "--event-loops", "1", "--admin", "0",
        ])
        let ready = try #require(await server.line(with: "control ready for operators"), "\(server.output)")
        let address = try #require(ready.firstMatch(of: /https:\/\/[0-9.:]+/).map { String($0.0) })
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.certificateVerification = .none
        let client = HTTPClient(
            eventLoopGroupProvider: .singleton, configuration: HTTPClient.Configuration(tlsConfiguration: tls))
        var text = ""
        repeat {
            let answer = try await client.execute(HTTPClientRequest(url: address + "/metrics"), timeout: .seconds(30))
            text = String(buffer: try await answer.body.collect(upTo: 1 << 22))
        } while !text.contains("\nquic_")
        #expect(text.contains("longline_sessions 0\n"))
        for match in text.matches(of: #/# TYPE (\S+) /#) { #expect(text.contains("# HELP \(match.1) "), "\(match.1)") }
        try await client.shutdown()
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("warns at the start where clients are told whatever addresses the machine has")
    func unnamedAccessPoints() async throws {
        let folder = try TemporaryFolder()
        let server = try ToolProcess([
            "server", "--data", "\(folder.path)/data", "--host", "0.0.0.0", "--port", "0", "--event-loops", "1",
            "--control", "0",
        ])
        #expect(await server.line(with: "control ready for clients") != nil, "\(server.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
        #expect(server.output.contains { $0.contains("say with access-point where they reach it") }, "\(server.output)")
    }

    @Test("is set up by what was set, and a setting that nothing would come of is refused")
    func settings() throws {
        let options = try #require(
            try? ServerCommand.parse([
                "--control", "8443", "--access-lifetime", "10m", "--access-heartbeat", "1m",
                "--access-heartbeat-answer", "2.5", "--access-back-off-base", "90", "--access-back-off-reset", "7",
                "--capacity-connections", "500", "--capacity-handshakes", "50", "--capacity-loop-delay", "0.1",
                "--capacity-memory", "2G", "--control-limit-connections", "10", "--control-limit-request-timeout", "5s",
                "--control-limit-body-timeout", "4s", "--control-limit-idle-timeout", "3s",
                "--control-limit-token-lifetime", "7d",
            ])
        ).controlOptions
        let access = try options.access.settings()
        #expect(access.policy.lifetime == .seconds(600) && access.policy.heartbeat == .seconds(60))
        #expect(access.policy.heartbeatAnswer == .seconds(2.5) && access.policy.backOffReset == .seconds(7))
        // The other one follows.
        #expect(access.policy.backOffBase == .seconds(90) && access.policy.backOffMaximum == .seconds(90))
        #expect(
            access.capacity
                == NodeCapacity(
                    connections: 500, handshakesPerSecond: 50, loopDelay: .milliseconds(100), memory: 2 << 30))
        let limits = try options.limits.limits()
        #expect(limits.connections == 10 && limits.requestTimeout == .seconds(5) && limits.bodyTimeout == .seconds(4))
        #expect(limits.idleTimeout == .seconds(3) && limits.tokenLifetime == .seconds(7 * 86_400))

        for option in ServerOptionHelp.all.map(\.name) {
            let layers = ["access-", "capacity-", "control-limit-", "migration-unsafe"]
            guard layers.contains(where: { option.hasPrefix($0) }) else { continue }
            let kind = ServerSettings.catalogue.setting(option: option)?.kind
            let value = kind == .time ? "=10s" : kind == .flag ? "" : option == "access-point" ? "=a:1" : "=1"
            let error = #expect(throws: (any Error).self) { try ServerCommand.parse(["--\(option)\(value)"]) }
            let message = error.map { ServerCommand.message(for: $0) } ?? ""
            #expect(message.contains("--\(option) goes with --control or --admin"), "\(option): \(message)")
        }
        for bad in [
            ["--access-heartbeat=4s"], ["--access-heartbeat=7m"], ["--access-lifetime=8d"],
            ["--access-back-off-base=2", "--access-back-off-maximum=1"], ["--control-limit-request-timeout=2h"],
            ["--control-limit-token-lifetime=31d"],
        ] { #expect(throws: (any Error).self) { try ServerCommand.parse(["--admin=8444"] + bad) } }
    }

    @Test("that is not wanted any more leaves nothing behind of a user who is erased")
    func formerLayer() async throws {
        let folder = try TemporaryFolder()
        let directory = try ServerDirectory(folder.path)
        let identity = try directory.developmentIdentity(names: ["localhost"])
        var configuration = LonglineServer.Configuration(
            store: .directory(directory.storePath), certificate: { identity.credentials }, tokenKeys: [],
            addresses: [])
        configuration.tokenKeySources = [directory.tokenKeySource]
        // A database that can't be opened is met only where there is one.
        let options = try ControlOptions.parse([])
        let server = LonglineServer(configuration: configuration)
        #expect(try options.control(of: server, directory, configuration.logger) == nil)
        try folder.write("control.db", "no database")
        #expect(throws: ControlError.self) { try options.control(of: server, directory, configuration.logger) }
    }

    @Test("and what waited for a webhook that is gone does neither")
    func formerWebhook() async throws {
        let folder = try TemporaryFolder()
        let directory = try ServerDirectory(folder.path)
        let identity = try directory.developmentIdentity(names: ["localhost"])
        var configuration = LonglineServer.Configuration(
            store: .directory(directory.storePath), certificate: { identity.credentials }, tokenKeys: [],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.tokenKeySources = [directory.tokenKeySource]
        let (tenant, users) = (try TenantID("acme"), try ["ann", "bob"].map { try UserID($0) })
        let before = try NotificationJournal(path: directory.notificationsPath)
        try await before.apply(
            keep: users.map { user in
                PendingNotification(
                    key: PendingNotification.Key(tenant: tenant, user: user, conversation: .user(users[0])),
                    channel: .user(user), position: Position(epoch: 1, offset: 1), sender: users[0], count: 1, time: 1,
                    expiry: 0, payload: nil, since: 1, notBefore: 1)
            }, forget: [])
        try before.close()
        let server = LonglineServer(configuration: configuration)
        try server.prepareStore()
        try ServerCommand.eraseNotifications(with: server, directory)
        try await server.start()
        try await server.erase(user: users[0], in: tenant)
        await server.shutdown()
        let after = try NotificationJournal(path: directory.notificationsPath)
        #expect(try await after.load().map(\.key.user) == [users[1]])
        try after.close()
        // One that can't be opened is met only where there is one.
        let none = try TemporaryFolder()
        try ServerCommand.eraseNotifications(
            with: LonglineServer(configuration: configuration), try ServerDirectory(none.path))
        #expect(!FileManager.default.fileExists(atPath: none.file("notifications.db")))
    }
}
