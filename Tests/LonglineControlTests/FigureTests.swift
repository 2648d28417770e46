import Foundation
import HTTP3
import HTTPTypes
import LonglineClient
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@testable import LonglineControl

@Suite("Figures of connections", .timeLimit(.minutes(2))) struct FigureTests {
    @Test("handshakes of HTTP/3 count as those of sessions do")
    func http3() async throws {
        try await withControl { service in
            let client = HTTP3Client()
            let configuration = ClientConfiguration(
                serverName: "localhost", applicationProtocols: [HTTP3Service.applicationProtocol],
                verification: .pinnedPublicKey(sha256: [service.pin]))
            let port = try #require(service.server.addresses.first?.port)
            for _ in 0..<3 {
                let connection = try await client.connect(
                    host: "127.0.0.1", port: port, configuration: configuration,
                    on: MultiThreadedEventLoopGroup.singleton.next())
                let answer = try await connection.request(
                    .init(method: .get, scheme: "https", authority: "localhost", path: "/.well-known/jwks.json"))
                #expect(answer.status == .ok)
            }
            let figures = try await service.ask(.get, "/metrics", from: "127.0.0.1")
            let lines = String(decoding: figures.body, as: UTF8.self).split(separator: "\n")
            #expect(lines.contains(#"longline_handshakes_total{kind="full"} 3"#), "\(lines)")
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    private func metrics(_ service: ControlService) async throws -> PrometheusText {
        let answer = try await service.ask(.get, "/metrics", from: "127.0.0.1")
        return PrometheusText(String(decoding: answer.body, as: UTF8.self))
    }

    @Test("a device that moves, goes and comes back is counted so")
    func returns() async throws {
        try await withControl { service in
            let client = try await service.client("ann", key: try await service.appKey())
            let ann = known { try UserID("ann") }
            try await client.connect()
            // The tickets have come before this is acknowledged.
            _ = try await client.send("one", to: .user(ann)).acknowledged()
            var text = try await metrics(service)
            #expect(text.samples[#"longline_handshakes_total{kind="full"}"#] == 1)
            #expect(text.samples[#"longline_handshakes_total{kind="early"}"#] == 0)
            #expect(text.samples["longline_migrations_total"] == 0)
            try await client.migrate()
            _ = try await client.send("two", to: .user(ann)).acknowledged()
            repeat { text = try await metrics(service) } while text.samples["longline_migrations_total"] == 0
            #expect(text.samples["longline_sessions_granted_total"] == 1)
            await client.disconnect()
            try await client.connect()
            _ = try await client.send("three", to: .user(ann)).acknowledged()
            text = try await metrics(service)
            #expect(text.samples[#"longline_handshakes_total{kind="full"}"#] == 1)
            #expect(text.samples[#"longline_handshakes_total{kind="early"}"#] == 1)
            #expect(text.samples["longline_sessions_granted_total"] == 2)
            #expect(text.samples["longline_sessions_resumed_total"] == 1)
            await client.disconnect()
        }
    }

    @Test("what a server has of hooks, disk and node is among its metrics, and a drain is seen")
    func node() async throws {
        try await withControl { service in
            var text = try await metrics(service)
            #expect(text.samples["longline_node_draining"] == 0 && text.samples["longline_node_full"] == 0)
            #expect(text.samples["longline_store_size_bytes"] ?? 0 > 4_096)
            #expect(text.samples["longline_store_free_bytes"] ?? 0 > 0)
            #expect(text.samples["longline_certificate_expiry_timestamp_seconds"] ?? 0 > Date().timeIntervalSince1970)
            // Not every system says it.
            if let open = text.samples["longline_open_files"] {
                #expect(open > 3)
                if let limit = text.samples["longline_open_files_limit"] { #expect(open <= limit) }
            }
            for name in text.kinds.keys { #expect(text.help[name] != nil, "\(name) has no HELP") }
            let path = "/v1/nodes/\(service.control.nodeID)/drain"
            #expect(try await service.ask(.post, path, key: try await service.operatorKey()).status == 202)
            text = try await metrics(service)
            #expect(text.samples["longline_node_draining"] == 1)
        }
    }

    @Test("name a node's access points so that an address of IPv6 and its port can be told apart")
    func accessPoints() async throws {
        try await withControl({
            $0.access.accessPoints = [
                NodeAddress(host: "fd00::1", port: 443), NodeAddress(host: "rt.example", port: 8_443),
            ]
        }) { service in
            let answer = try await service.ask(.get, "/v1/statistics", from: "127.0.0.1")
            let nodes = try #require(try answer.object()["nodes"] as? [[String: Any]])
            #expect(nodes.first?["access_points"] as? [String] == ["[fd00::1]:443", "rt.example:8443"])
        }
    }

    @Test("go on where the clock was set back")
    func clockSetBack() {
        func samples(_ times: UInt64...) -> [StatisticsSampler.Sample] {
            times.map {
                StatisticsSampler.Sample(
                    time: $0, connections: [:], sessions: 0, handshakesFull: 0, handshakesResumed: 0,
                    handshakesEarly: 0, migrations: 0, published: 0, delivered: 0, loopDelay: 0, memory: 0)
            }
        }
        func times(_ samples: [StatisticsSampler.Sample], after time: UInt64) -> [UInt64] {
            StatisticsSampler.rest(of: samples, after: time).map(\.time)
        }
        let even = samples(100, 200, 300)
        #expect(times(even, after: 0) == [100, 200, 300] && times(even, after: 250) == [300])
        #expect(times(even, after: 300).isEmpty)
        let back = samples(9_100, 9_200, 300, 400)
        #expect(times(back, after: 9_200) == [300, 400] && times(back, after: 300) == [400])
        // The one that was seen last is not kept any more.
        #expect(times(samples(300, 400), after: 9_200) == [300, 400])
        #expect(times([], after: 5).isEmpty)
    }
}
