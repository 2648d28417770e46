import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
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
        let logged = lines.all.withLock { $0 }
        #expect(statistics.closes[.credentialInvalid] == 200)
        #expect(logged.count < 200, "\(logged.count) lines for 200 connects")
        #expect(statistics.logLinesDropped > 200)
        #expect(logged.contains { $0.contains("credential refused") })
        #expect(logged.allSatisfy { !$0.contains("forged") && !$0.contains(token.prefix(20)) })
    }

    @Test func aClientsNameCanNotBreakALine() {
        let connect = Connect(
            versions: [1], credential: .token(""), producer: ProducerID(high: 0, low: 0), connectNumber: 1,
            cursorVersion: 0, cursors: [], agent: "app\n2026 critical\u{1B}[31mfake\u{202E}")
        #expect(ConnectSummary(connect).agent == "app?2026 critical?[31mfake?")
    }
}
