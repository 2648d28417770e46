import Foundation
import HTTPTypes
import LonglineClient
import LonglineServer
import LonglineWire
import Testing

@testable import LonglineControl

@Suite("Operators", .timeLimit(.minutes(2))) struct OperatorTests {
    @Test("see who is connected, from where, over what, and end it with a code")
    func sessions() async throws {
        try await withControl { service in
            let (app, key) = (try await service.appKey(), try await service.operatorKey())
            let client = try await service.client("ann", key: app)
            try await client.connect()
            let listed = try await service.ask(.get, "/v1/users/ann/sessions?tenant=acme", key: key)
            let sessions = try #require(try listed.object()["sessions"] as? [[String: Any]])
            #expect(sessions.count == 1)
            #expect(
                sessions.first?["device"] as? String == "phone" && sessions.first?["transport"] as? String == "quic")
            #expect((sessions.first?["remote_address"] as? String)?.hasPrefix("127.0.0.1") == true)
            #expect(sessions.first?["node"] as? String == service.control.nodeID.description)
            // Of another tenant, or another device, nobody is there.
            let other = try await service.ask(.get, "/v1/users/ann/sessions?tenant=other", key: key)
            #expect(try other.array("sessions").isEmpty)
            let none = try await service.ask(.delete, "/v1/users/ann/sessions?tenant=acme&device=tablet", key: key)
            #expect(try none.object()["ended"] as? Int == 0)
            // However it is written; and nothing ends where the device may be what was misspelt.
            let encoded = try await service.ask(.delete, "/v1/users/ann/sessions?tenant=acme&%64evice=tablet", key: key)
            #expect(try encoded.object()["ended"] as? Int == 0)
            for query in ["devise=phone", "%64evise=phone", "device=tablet&%64evice=phone", "Device=a", "%zz=a"] {
                let answer = try await service.ask(.delete, "/v1/users/ann/sessions?tenant=acme&\(query)", key: key)
                #expect(answer.problem == "invalid-request", "\(query)")
            }
            let up = service.server.devices(of: known { try UserID("ann") }, in: ControlService.tenant)
            #expect(up.map(\.description) == ["phone"])
            let ended = try await service.ask(
                .delete, "/v1/users/ann/sessions?tenant=acme&device=phone&code=5007&reason=for%20now", key: key)
            #expect(try ended.object()["ended"] as? Int == 1)
            let state = await client.reaches { $0.stopError != nil }
            guard case .stopped(let code, let reason)? = state else {
                Issue.record("\(String(describing: state))")
                return
            }
            #expect(code == .loggedOut && reason == "for now")
            // A reason ends up in logs and on terminals.
            for character in ["%0a", "%1b", "%7f", "%C2%85", "%E2%80%A8", "%E2%80%AE"] {
                let path = "/v1/users/ann/sessions?tenant=acme&reason=x\(character)y"
                #expect(try await service.ask(.delete, path, key: key).status == 400, "\(character)")
            }
            for query in ["", "?tenant=acme&code=999", "?tenant=acme&code=6000", "?tenant=a%20b"] {
                #expect(try await service.ask(.delete, "/v1/users/ann/sessions\(query)", key: key).status == 400)
            }
            await client.disconnect()
        }
    }

    @Test("empty a node: clients are moved away, nobody is let in, and it is not ready")
    func drain() async throws {
        try await withControl { service in
            let (app, key) = (try await service.appKey(), try await service.operatorKey())
            let node = service.control.nodeID
            let token = try await service.token("ann", key: app)
            #expect(try await service.ask(.get, "/readyz").status == 200)
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).status == 200)
            let client = try await service.client("ann", key: app)
            try await client.connect()
            #expect(try await service.ask(.post, "/v1/nodes/elsewhere/drain", key: key).status == 404)
            #expect(
                try await service.ask(.post, "/v1/nodes/\(node)/drain", key: key, json: #"{"rate":0}"#).status == 400)
            let states = client.states
            let answer = try await service.ask(.post, "/v1/nodes/\(node)/drain", key: key, json: #"{"rate":1000}"#)
            #expect(answer.status == 202)
            #expect(try answer.object()["remaining"] as? Int == 1)
            for await state in states { if case .waiting = state { break } }
            let unready = try await service.ask(.get, "/readyz")
            #expect(unready.status == 503 && unready.headers[.retryAfter] != nil)
            #expect(try await service.ask(.get, "/healthz").status == 200)
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).problem == "no-access-point")
            await client.disconnect()
        }
    }

    @Test("have figures as Prometheus reads them, which move with what happens")
    func figures() async throws {
        try await withControl({ $0.sampleInterval = .milliseconds(20) }) { service in
            func figures(_ query: String = "") async throws -> (nodes: [[String: Any]], samples: [[String: Any]]) {
                let figures = try await service.ask(.get, "/v1/statistics\(query)", from: "::1").object()
                return (
                    try #require(figures["nodes"] as? [[String: Any]]),
                    try #require(figures["samples"] as? [[String: Any]])
                )
            }
            while try await figures().samples.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
            let app = try await service.appKey()
            let client = try await service.client("ann", key: app)
            try await client.connect()
            _ = try await client.send("hello", to: .user("ann")).acknowledged()
            let answer = try await service.ask(.get, "/metrics", from: "127.0.0.1")
            #expect(answer.headers[.contentType] == "text/plain; version=0.0.4; charset=utf-8")
            let lines = Set(String(decoding: answer.body, as: UTF8.self).split(separator: "\n"))
            for line in [
                "longline_published_total 1", "longline_sessions 1", #"longline_connections{transport="quic"} 1"#,
                #"longline_handshakes_total{kind="full"} 1"#, "# TYPE longline_delivery_latency_seconds histogram",
                #"longline_control_requests_total{method="POST",route="/v1/tokens",status="201"} 1"#,
            ] {
                #expect(lines.contains(Substring(line)), "\(line)")
            }
            #expect(try await figures().nodes.map { $0["id"] as? String } == [service.control.nodeID.description])
            var samples: [[String: Any]] = []
            repeat {
                samples = try await figures().samples
            } while !samples.contains {
                $0["published"] as? Double ?? 0 > 0
            }
            #expect(try #require(samples.last)["sessions"] as? Int == 1)
            // The first one was there before the message was sent.
            let time = try #require(samples.first?["time"] as? Int)
            let later = try await figures("?after=\(time)").samples
            #expect(!later.isEmpty && later.allSatisfy { $0["time"] as? Int ?? 0 > time })
            await client.disconnect()
        }
    }

    @Test("take no sample by asking")
    func asking() async throws {
        try await withControl({ $0.sampleInterval = .seconds(3_600) }) { service in
            for _ in 0..<5 { #expect(try await service.ask(.get, "/metrics", from: "::1").status == 200) }
            let figures = try await service.ask(.get, "/v1/statistics", from: "::1")
            // The first one, if that was taken already.
            #expect(try figures.array("samples").count <= 1)
        }
    }

    @Test("read figures from elsewhere with their key only")
    func reading() async throws {
        try await withControl { service in
            let (tenants, all) = (try await service.key([.operate]), try await service.operatorKey())
            for path in ["/metrics", "/v1/statistics"] {
                #expect(try await service.ask(.get, path).status == 401)
                #expect(try await service.ask(.get, path, key: tenants).status == 403)
                #expect(try await service.ask(.get, path, key: all).status == 200)
                #expect(try await service.ask(.get, path, from: "127.0.0.9").status == 200)
            }
        }
    }

    @Test("have a page whose policy lets nothing run or load that is not in it")
    func dashboard() async throws {
        try await withControl { service in
            let answer = try await service.ask(.get, "/")
            let page = String(decoding: answer.body, as: UTF8.self)
            let policy = try #require(answer.headers[.contentSecurityPolicy])
            #expect(policy.hasPrefix("default-src 'none'; script-src 'sha256-"))
            #expect(policy.contains(DocumentRoutes.source("script", page)))
            #expect(!policy.contains("unsafe") && !policy.contains("'none';  "))
            for foreign in ["http://", "src=", "@import", "style=\""] {
                #expect(!page.replacing("http://www.w3.org/2000/svg", with: "").contains(foreign), "\(foreign)")
            }
            #expect(try await service.ask(.head, "/").body.isEmpty)
            #expect(try await service.ask(.get, "/", on: .service).status == 404)
        }
    }
}
