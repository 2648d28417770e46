import Foundation
import Logging
import LonglineSession
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import LonglineServer

@Suite(.timeLimit(.minutes(1))) struct LogTests {
    @Test func aFloodOfBadConnectsIsFewLinesWithoutSecrets() async throws {
        let lines = RecordedLines()
        var limits = ServerLimits()
        limits.logLinesPerSecond = 5
        let server = try await TestServer(limits: limits, logger: lines.logger)
        let token = try await server.issuer.token("ann", "phone")
        let forged = String(token.dropLast(6)) + "forged"
        for _ in 0..<200 {
            let device = try await server.device("ann")
            try await device.send([(device.connectFrame(.token(forged)), .control)])
            #expect(try await device.closed() == .credentialInvalid)
        }
        let statistics = await server.runtime.statistics()
        await server.stop()
        let logged = lines.all
        #expect(statistics.closes[.credentialInvalid] == 200)
        #expect(logged.count < 200, "\(logged.count) lines for 200 connects")
        #expect(statistics.logLinesDropped > 200)
        #expect(logged.contains { $0.contains("credential refused") })
        #expect(logged.allSatisfy { !$0.contains("forged") && !$0.contains(token.prefix(20)) })
    }

    @Test func linesThatPeersCauseHideNoErrors() {
        let lines = RecordedLines()
        let log = EventLog(logger: lines.logger, linesPerSecond: 100, now: .now())
        func isLeftOut(_ levels: Logger.MetadataValue) -> Bool {
            lines.lines.contains { $0.message == "log lines left out" && $0.metadata["levels"] == levels }
        }
        while log.dropped < 1_000 { log.log(.notice, "credential refused") }
        log.log(.error, "the store failed")
        #expect(lines.lines.contains { $0.message == "the store failed" })
        log.limited.error("cursors could not be written")
        #expect(lines.lines.contains { $0.message == "cursors could not be written" })
        // Each says of its own how many are missing.
        #expect(!isLeftOut("error"))
        while !isLeftOut("below error") { log.log(.notice, "credential refused") }
        #expect(!isLeftOut("error"))
        while !isLeftOut("error") { log.log(.error, "the store failed") }
    }

    @Test func aFloodIsToldOfOnceASecond() {
        let lines = RecordedLines()
        let time = Mutex(NIODeadline.uptimeNanoseconds(0))
        let log = EventLog(logger: lines.logger, linesPerSecond: 50, now: .uptimeNanoseconds(0)) {
            time.withLock { $0 }
        }
        for millisecond in 0..<UInt64(10_000) {
            time.withLock { $0 = .uptimeNanoseconds(millisecond * 1_000_000) }
            log.log(.notice, "credential refused")
        }
        // The burst, and 50 lines of each second.
        let written = lines.lines.count { $0.message == "credential refused" }
        #expect((590...610).contains(written), "\(written) lines")
        func notices() -> [RecordedLines.Line] { lines.lines.filter { $0.message == "log lines left out" } }
        #expect((9...11).contains(notices().count), "\(notices().count) notices")
        // Together they say of every line that is missing.
        time.withLock { $0 = .uptimeNanoseconds(12_000_000_000) }
        log.log(.notice, "credential refused")
        let told = notices().reduce(UInt64(0)) { $0 + (UInt64("\($1.metadata["lines"] ?? "")") ?? 0) }
        #expect(told == log.dropped && told > 0)
    }

    /// What a session says at the most talkative level, from its connect to its end, with a webhook that fails.
    @Test func noLineHoldsASecret() async throws {
        let lines = RecordedLines()
        var logger = lines.logger
        logger.logLevel = .trace
        let key = Array("a webhook secret!".utf8)
        let backend = try await Backend { _ in Backend.Response(status: .badRequest, body: "the answer's words") }
        var endpoint = WebhookSettings(
            url: "http://127.0.0.1:\(backend.port)/push", key: WebhookKey(id: "1", secret: key))
        endpoint.delay = .zero
        endpoint.includesPayload = true
        let secrets = Mutex<[[UInt8]]>([key, Array("a private message".utf8), Array("the answer's words".utf8)])
        let webhooks = WebhookConfiguration(standard: endpoint)
        try await TestServer(logger: logger, webhooks: webhooks).use { server in
            let token = try await server.issuer.token("ann", "phone")
            let phone = try await server.device("ann")
            _ = try await phone.connect(credential: .token(token))
            let ticket = try #require(phone.ticket).ticket
            secrets.withLock { $0 += [Array(token.utf8), Array(ticket.readableBytesView)] }
            try await phone.message("a private message", to: identifier { try UserID("bob") })
            while server.runtime.core.webhooks?.statistics.rejected == 0 { await Task.yield() }
            let again = try await server.device("ann")
            again.producer = phone.producer
            again.connectNumber = 2
            _ = try await again.connect(credential: .ticket(ticket))
            try await again.send([(.refresh(Refresh(token: token + "x")), .control)])
            #expect(try await again.closed() == .credentialInvalid)
            let forged = try await server.device("eve")
            try await forged.sendInvalid(FrameError(.malformed, message: "a frame that is cut off"))
            _ = try await forged.closed()
        }
        try await backend.stop()
        let logged = lines.all
        for line in [
            "session granted", "session closed", "the webhook rejected", "credential refused", "invalid frame",
        ] {
            #expect(logged.contains { $0.contains(line) }, "no line says '\(line)'")
        }
        for secret in secrets.withLock({ $0 }) {
            // In whatever form: as it is, in base64 and hexadecimal, and a part of it.
            let part = Array(secret.prefix(12))
            let forms = [
                String(decoding: part, as: UTF8.self), Data(part).base64EncodedString().prefix(15).description,
                part.map { String(format: "%02x", $0) }.joined(), "\(part)".dropFirst().dropLast().description,
            ]
            for line in logged {
                for form in forms { #expect(!line.contains(form), "a secret in: \(line)") }
            }
        }
    }

    @Test func aClientsNameCanNotBreakALine() {
        let connect = Connect(
            versions: [1], credential: .token(""), producer: ProducerID(high: 0, low: 0), connectNumber: 1,
            cursorVersion: 0, cursors: [], agent: "app\n2026 critical\u{1B}[31mfake\u{202E}")
        #expect(ConnectSummary(connect).agent == "app?2026 critical?[31mfake?")
    }
}
