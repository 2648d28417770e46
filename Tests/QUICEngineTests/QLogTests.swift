import CQUICShim
import Foundation
import LonglineTestKit
import Synchronization
import Testing

@testable import QUICEngine

@Suite struct QLogTests {
    /// Traces by who wrote them.
    private final class Traces: Sendable {
        struct Trace {
            var bytes: [UInt8] = []
            var ends = 0
        }

        let all = Mutex<[QLogSubject: Trace]>([:])

        var log: QLog {
            { subject in
                self.all.withLock { $0[subject] = Trace() }
                return { bytes, isLast in
                    self.all.withLock {
                        $0[subject]?.bytes.append(contentsOf: bytes)
                        if isLast { $0[subject]?.ends += 1 }
                    }
                }
            }
        }
    }

    /// The records of a JSON text sequence (RFC 7464), each parsed.
    private func records(_ bytes: [UInt8]) throws -> [[String: Any]] {
        try bytes.split(separator: 0x1e).map { record in
            #expect(record.last == 0x0a)
            return try #require(try JSONSerialization.jsonObject(with: Data(record)) as? [String: Any])
        }
    }

    @Test("both sides' traces are qlog 0.3, know each other, and count what was lost")
    func bothSidesTracesAreQLog() throws {
        let traces = Traces()
        let log = traces.log
        var conditions = NetworkConditions()
        conditions.loss = 0.05
        let world = try EngineWorld(seed: 3, conditions: conditions) { server, client in
            server.qlog = log
            client.qlog = log
        }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        #expect(client.originalDestinationID == server.originalDestinationID)
        let stream = try client.open()
        try client.send(pattern(100_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(20)) { world.clientSide.finished.contains(stream) }
        let lost = try #require(client.statistics(now: world.network.now).packetsLost)
        #expect(lost > 0)
        #expect(traces.all.withLock { $0.values.allSatisfy { $0.ends == 0 } })
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(5))

        let written = traces.all.withLock { $0 }
        #expect(written.count == 2)
        for (subject, trace) in written {
            #expect(subject.originalDestinationID == client.originalDestinationID)
            #expect(trace.ends == 1)
            let records = try records(trace.bytes)
            #expect(records.first?["qlog_version"] as? String == "0.3")
            #expect(records.first?["qlog_format"] as? String == "JSON-SEQ")
            let header = try #require(records.first?["trace"] as? [String: Any])
            let point = try #require(header["vantage_point"] as? [String: Any])
            #expect(point["type"] as? String == (subject.isServer ? "server" : "client"))
            let common = try #require(header["common_fields"] as? [String: Any])
            #expect(common["group_id"] as? String == subject.originalDestinationIDText)
            let names = records.dropFirst().compactMap { $0["name"] as? String }
            #expect(names.count == records.count - 1)
            #expect(names.contains("transport:packet_sent") && names.contains("transport:packet_received"))
            if !subject.isServer {
                #expect(names.count { $0 == "recovery:packet_lost" } == Int(lost))
            }
        }
    }

    @Test("a record without a beginning is completed") func aRecordWithoutABeginningIsCompleted() {
        func complete(_ written: String, capacity: Int = 1000) -> String {
            var record = [UInt8](repeating: 0, count: capacity)
            let bytes = Array(written.utf8)
            let count = record.withUnsafeMutableBufferPointer {
                llq_qlog_complete(bytes, bytes.count, $0.baseAddress, capacity)
            }
            return String(decoding: record[..<count], as: UTF8.self)
        }
        let before =
            "\u{1e}{\"time\":7,\"name\":\"transport:packet_received\",\"data\":{\"frames\":[],\"header\":{}}}\n"
        let rest = "{\"frame_type\":\"padding\"}],\"header\":{\"packet_number\":3},\"raw\":{\"length\":822}}}\n"
        let whole = "\u{1e}{\"time\":7,\"name\":\"transport:packet_sent\",\"data\":{\"frames\":[" + rest
        #expect(complete(before + rest) == whole)
        // The next one lies behind it.
        #expect(complete(before + rest.replacing("822", with: "1") + rest) == whole)
        #expect(complete(before) == "" && complete(rest) == "" && complete(rest + rest) == "" && complete("\n") == "")
        #expect(complete(before + rest, capacity: whole.utf8.count - 1) == "")
    }

    @Test("nobody who doesn't ask gets a trace") func nobodyWhoDoesntAskGetsATrace() throws {
        let world = try EngineWorld { server, _ in server.qlog = { _ in nil } }
        let (client, server) = try world.connected()
        #expect(server.context.qlog == nil && client.context.qlog == nil)
        #expect(client.statistics(now: world.network.now).packetsLost == nil)
    }
}
