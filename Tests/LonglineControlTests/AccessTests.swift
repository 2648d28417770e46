import Foundation
import HTTPTypes
import JWTKit
import LonglineClient
import LonglineServer
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineControl

@Suite("The access configuration", .timeLimit(.minutes(2))) struct AccessTests {
    /// Nodes that a test says.
    private final class Nodes: NodeDirectory {
        let all: Mutex<[NodeStatus]>
        init(_ nodes: [NodeStatus]) { all = Mutex(nodes) }
        func nodes() async -> [NodeStatus] { all.withLock { $0 } }
        func drain(_ node: NodeID, rate: Int) async -> NodeDrainStatus? { nil }
    }

    private static func node(_ name: String, connections: Int = 0, isDraining: Bool = false) -> NodeStatus {
        NodeStatus(
            id: NodeID(name) ?? .random(), addresses: [NodeAddress(host: "\(name).example", port: 4433)],
            load: NodeLoad(connections: connections), capacity: NodeCapacity(connections: 100), isDraining: isDraining)
    }

    private struct Statement: JWTPayload {
        var version: Int

        func verify(using algorithm: some JWTAlgorithm) async throws {}
    }

    /// What was signed, verified by the keys that everybody gets.
    private func verified(_ signature: String, _ service: ControlService) async throws -> AccessConfiguration {
        let set = try await service.ask(.get, "/.well-known/jwks.json", on: .service)
        let keys = JWTKeyCollection()
        try await keys.add(jwksJSON: String(decoding: set.body, as: UTF8.self))
        _ = try await keys.verify(signature, as: Statement.self)
        let payload = try #require(Base64URL.decode(signature.split(separator: ".")[1].utf8))
        return try ControlJSON.decoder.decode(AccessConfiguration.self, from: payload)
    }

    @Test("says where to connect and how, signed by a key that everybody gets")
    func signed() async throws {
        try await withControl({
            $0.access.accessPoints = [NodeAddress(host: "rt.example", port: 443, isMigrationSafe: false)]
        }
        ) {
            service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(answer.status == 200 && answer.headers[.cacheControl] == "private, no-store")
            let plain = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body)
            #expect(
                plain.accessPoints == [
                    AccessConfiguration.Point(
                        host: "rt.example", port: 443, transports: ["quic"],
                        serverId: service.control.nodeID.description,
                        migrationSafe: false)
                ])
            #expect(plain.expiresAt == plain.issuedAt + 300_000 && plain.limits.maximumPayload == 1 << 20)
            #expect(plain.heartbeat.minimum == 5_000 && plain.backOff.maximum == 60_000)

            let signature = try answer.string("signature")
            #expect(try await verified(signature, service) == plain)
            // It opens no session and no route.
            #expect(try await service.ask(.get, "/v1/access", key: signature, on: .service).status == 401)
            // Another place under the signature, in words that read just as well.
            var parts = signature.split(separator: ".").map(String.init)
            let words = String(decoding: try #require(Base64URL.decode(parts[1].utf8)), as: UTF8.self)
            let others = Data(words.replacing("rt.example", with: "rt.other").utf8)
            let read = try ControlJSON.decoder.decode(AccessConfiguration.self, from: others)
            #expect(read.accessPoints.map(\.host) == ["rt.other"])
            parts[1] = Base64URL.encode(others)
            let forged = parts.joined(separator: ".")
            await #expect(throws: (any Error).self) { try await verified(forged, service) }
        }
    }

    @Test("answers a question with a nonce by what is signed for this device and this question alone")
    func bound() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let token = try await service.token("ann", key: key)
            func ask(_ nonce: String, _ token: String) async throws -> AccessConfiguration {
                let answer = try await service.ask(.get, "/v1/access?nonce=\(nonce)", key: token, on: .service)
                #expect(answer.status == 200)
                let plain = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body)
                #expect(try await verified(try answer.string("signature"), service) == plain)
                return plain
            }
            let (first, second) = ("0123456789abcdef", String(repeating: "-_Z9", count: 16))
            let question = try #require(try await ask(first, token).question)
            #expect(question.nonce == first && question.tenant == "\(ControlService.tenant)")
            #expect(question.user == "ann" && !question.device.isEmpty)
            // Within the same second: what is shared by those who verify nothing is nobody's question.
            #expect(try await ask(second, token).question?.nonce == second)
            #expect(try await ask(first, try await service.token("bob", key: key)).question?.user == "bob")
            let shared = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(try ControlJSON.decoder.decode(AccessConfiguration.self, from: shared.body).question == nil)
        }
    }

    @Test(
        "refuses a nonce that is too short, too long, or of other characters",
        arguments: [
            "", "0123456789abcde", String(repeating: "a", count: 65), "0123456789abcde%22", "0123456789abcde+",
            "0123456789abcdef&nonce=0123456789abcdef",
        ])
    func nonces(nonce: String) async throws {
        try await withControl { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access?nonce=\(nonce)", key: token, on: .service)
            #expect(answer.status == 400 && answer.problem == "invalid-request")
        }
    }

    @Test("follows a rotation of the key that signs it")
    func rotated() async throws {
        try await withControl { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let before = try await service.ask(.get, "/v1/access", key: token, on: .service).string("signature")
            try await service.directory.rotateSigningKey(keep: 1)
            let after = try await service.ask(.get, "/v1/access", key: token, on: .service).string("signature")
            #expect(before.split(separator: ".")[0] != after.split(separator: ".")[0])
        }
    }

    @Test("with one node it is that node, where the server listens")
    func alone() async throws {
        try await withControl { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            let points = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body).accessPoints
            #expect(points.map(\.port) == service.server.addresses.map(\.port) && points.first?.host == "127.0.0.1")
        }
    }

    @Test("leaves out nodes that are draining or full, and has none to offer without any")
    func leftOut() async throws {
        let nodes = Nodes([Self.node("a"), Self.node("b", connections: 100), Self.node("c", isDraining: true)])
        try await withControl({ $0.nodes = nodes }) { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            let points = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body).accessPoints
            #expect(points.map(\.serverId) == ["a"])
            nodes.all.withLock { $0.removeAll { $0.id.description != "c" } }
            let none = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(none.status == 503 && none.problem == "no-access-point")
        }
    }

    @Test("of a service with many nodes, tells as many of the best as a client takes")
    func many() async throws {
        let nodes = Nodes((0..<400).map { Self.node("node-\($0)") })
        try await withControl({ $0.nodes = nodes }) { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(answer.body.count <= StoredAccess.maximumAnswer)
            let points = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body).accessPoints
            let ranked = NodeRanking.rank(
                nodes.all.withLock { $0 }, tenant: ControlService.tenant, user: known { try UserID("ann") })
            #expect(points.map(\.serverId) == ranked.prefix(16).map(\.id.description))
        }
    }

    @Test("says the longest time that there is where the operator's is longer")
    func endless() throws {
        var policy = AccessPolicy()
        policy.lifetime = .seconds(Int64.max)
        policy.backOffReset = .seconds(Int64.max / 500)
        let told = AccessConfiguration(
            nodes: [], policy: policy, limits: ServerLimits(), tenant: ControlService.tenant, question: nil, now: 5_000)
        #expect(told.expiresAt == 5_000 + FrameLimits.maximumNumber)
        #expect(told.backOff.resetAfter == FrameLimits.maximumNumber && told.backOff.base == 250)
    }

    @Test("leaves no node out for another's many addresses, and keeps the order")
    func manyAddresses() throws {
        func told(_ counts: [Int]) -> [String] {
            let nodes = counts.enumerated().map { number, count in
                var node = Self.node("n\(number)")
                node.addresses = (0..<count).map { NodeAddress(host: "n\(number).example", port: 4_433 + $0) }
                return node
            }
            return AccessConfiguration(
                nodes: nodes, policy: AccessPolicy(), limits: ServerLimits(), tenant: ControlService.tenant,
                question: nil, now: 0
            ).accessPoints.map { "\($0.serverId):\($0.port - 4_433)" }
        }
        func all(_ counts: [Int]) -> [String] {
            counts.enumerated().flatMap { number, count in (0..<count).map { "n\(number):\($0)" } }
        }
        #expect(told([2, 3, 1]) == all([2, 3, 1]))
        #expect(told([40, 1, 2]) == all([13, 1, 2]))
        // The best have the last places.
        #expect(told([9, 9, 9]) == all([6, 5, 5]))
        #expect(told([40] + Array(repeating: 2, count: 20)) == all(Array(repeating: 1, count: 16)))
        #expect(told([40]) == all([16]))
        #expect(told([]) == [])
    }

    @Test("tells of no place that clients would leave out, and ranks no node that has no other")
    func unusablePlaces() async throws {
        var (half, none) = (Self.node("a"), Self.node("b"))
        half.addresses.insert(NodeAddress(host: "https://a.example", port: 4433), at: 0)
        half.addresses.append(NodeAddress(host: "a.example", port: 0))
        none.addresses = [NodeAddress(host: "b.example", port: 4433, transports: [])]
        let nodes = Nodes([half, none])
        try await withControl({ $0.nodes = nodes }) { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            let points = try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body).accessPoints
            #expect(points.map { "\($0.host):\($0.port)" } == ["a.example:4433"])
            nodes.all.withLock { _ = $0.removeFirst() }
            let nowhere = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(nowhere.problem == "no-access-point")
        }
    }

    @Test("offers the least loaded of nodes that are all full, and never one that is draining")
    func allFull() throws {
        func offered(_ nodes: [NodeStatus]) -> [String] {
            NodeRanking.rank(nodes, tenant: ControlService.tenant, user: known { try UserID("ann") })
                .map(\.id.description)
        }
        let full = Self.node("a", connections: 200)
        #expect(offered([full]) == ["a"])
        #expect(offered([full, Self.node("b", connections: 120), Self.node("c", isDraining: true)]) == ["b"])
        #expect(offered([Self.node("a", connections: 200, isDraining: true)]) == [])
        #expect(offered([full, Self.node("b")]) == ["b"])
    }

    @Test("a node that has the sessions that it may have is full, by the limits that hold now")
    func fullNode() async throws {
        try await withControl(limits: { $0.maximumSessions = 1 }, { $0.sampleInterval = .milliseconds(20) }) {
            service in
            func isFull() async throws -> Bool {
                let figures = try await service.ask(.get, "/v1/statistics", from: "127.0.0.1").object()
                let nodes = try #require(figures["nodes"] as? [[String: Any]])
                return try #require(nodes.first?["full"] as? Bool)
            }
            #expect(try await !isFull())
            let key = try await service.appKey()
            let client = try await service.client("ann", key: key)
            try await client.connect()
            while try await !isFull() { try await Task.sleep(for: .milliseconds(5)) }
            // It is the only one.
            let token = try await service.token("bob", key: key)
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).status == 200)
            var limits = service.server.configuration.limits
            limits.maximumSessions = 2
            try service.server.reload(limits: limits)
            #expect(try await !isFull())
            await client.disconnect()
        }
    }

    @Test("what clients are told changes while it runs, and what can't be told doesn't")
    func reloaded() async throws {
        try await withControl { service in
            let token = try await service.token("ann", key: try await service.appKey())
            func told() async throws -> AccessConfiguration {
                let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
                return try ControlJSON.decoder.decode(AccessConfiguration.self, from: answer.body)
            }
            #expect(try await told().accessPoints.first?.host == "127.0.0.1")
            var settings = AccessSettings()
            settings.accessPoints = [NodeAddress(host: "rt.example", port: 443, isMigrationSafe: false)]
            settings.policy.heartbeat = .seconds(45)
            try service.control.reload(settings)
            let changed = try await told()
            #expect(changed.accessPoints.map(\.host) == ["rt.example"] && changed.heartbeat.initial == 45_000)
            #expect(changed.accessPoints.first?.migrationSafe == false)
            #expect(service.control.alternativeService == "h3=\":443\"; ma=86400")
            settings.accessPoints = [NodeAddress(host: "", port: 443)]
            #expect(throws: ControlError.self) { try service.control.reload(settings) }
            #expect(try await told().accessPoints.map(\.host) == ["rt.example"])
            // As is the largest payload.
            var limits = service.server.configuration.limits
            limits.maximumPayload = 1_000
            try service.server.reload(limits: limits)
            #expect(try await told().limits.maximumPayload == 1_000)
        }
    }

    @Test(
        "tells of loopback only where it was named or where there is nothing else",
        arguments: [
            (["0.0.0.0"], ["127.0.0.1", "10.1.2.3", "192.0.2.1"], ["10.1.2.3", "192.0.2.1"]),
            (["0.0.0.0", "::"], ["127.0.0.1", "10.1.2.3", "::1"], ["10.1.2.3"]),
            (["::", "127.0.0.1"], ["::1", "2001:db8::1", "127.0.0.1"], ["2001:db8::1", "127.0.0.1"]),
            (["0.0.0.0"], ["127.0.0.1"], ["127.0.0.1"]),
            (["127.0.0.1", "10.1.2.3"], ["127.0.0.1", "10.1.2.3"], ["127.0.0.1", "10.1.2.3"]),
        ] as [([String], [String], [String])])
    func expandedWildcards(configured: [String], listening: [String], told: [String]) throws {
        func addresses(_ hosts: [String], port: Int) throws -> [SocketAddress] {
            try hosts.map { try SocketAddress(ipAddress: $0, port: port) }
        }
        let chosen = LocalNode.told(
            try addresses(listening, port: 4433), configured: try addresses(configured, port: 0))
        let expected = try addresses(told, port: 4433)
        #expect(chosen == expected)
    }

    @Test("takes the hosts that clients take, and no others")
    func hosts() throws {
        for host in ["rt.example", "xn--mnchen-3ya.example", "192.0.2.1", "2001:db8::1"] {
            var settings = AccessSettings()
            settings.accessPoints = [NodeAddress(host: host, port: 443)]
            try settings.validate()
        }
        for host in ["", "https://rt.example", "münchen.example", "[::1]", "[::1", "rt.example:443", "a b"] {
            var settings = AccessSettings()
            settings.accessPoints = [NodeAddress(host: "rt.example", port: 443), NodeAddress(host: host, port: 443)]
            let error = #expect(throws: ControlError.self) { try settings.validate() }
            #expect(error?.code == .invalidConfiguration, "\(host)")
        }
    }

    @Test("ranks the same for all of a user's devices, spreads users, and moves few of them when a node goes")
    func ranking() throws {
        let nodes = ["a", "b", "c", "d"].map { Self.node($0) }
        let tenant = ControlService.tenant
        let users = try (0..<1_000).map { try UserID("user-\($0)") }
        func first(_ nodes: [NodeStatus], _ user: UserID) -> NodeID? {
            NodeRanking.rank(nodes, tenant: tenant, user: user).first?.id
        }
        var counts: [NodeID: Int] = [:]
        for user in users {
            // Whatever order the nodes are known in.
            let order = NodeRanking.rank(nodes, tenant: tenant, user: user)
            #expect(order == NodeRanking.rank(nodes.reversed(), tenant: tenant, user: user) && order.count == 4)
            order.first.map { counts[$0.id, default: 0] += 1 }
        }
        #expect(counts.count == 4 && counts.values.allSatisfy { (180...320).contains($0) })
        // Only who was on the node that is gone goes elsewhere.
        for user in users where first(nodes, user) != nodes[3].id {
            #expect(first(Array(nodes.dropLast()), user) == first(nodes, user))
        }
    }

    @Test("prefers the least loaded, and a little load changes nothing")
    func load() throws {
        let tenant = ControlService.tenant
        for index in 0..<100 {
            let user = try UserID("user-\(index)")
            let busy = [
                Self.node("a", connections: 90), Self.node("b", connections: 10), Self.node("c", connections: 75),
            ]
            #expect(NodeRanking.rank(busy, tenant: tenant, user: user).map(\.id.description) == ["b", "c", "a"])
            let quiet = [Self.node("a", connections: 1), Self.node("b", connections: 60)]
            let idle = [Self.node("a"), Self.node("b")]
            #expect(
                NodeRanking.rank(quiet, tenant: tenant, user: user).map(\.id)
                    == NodeRanking.rank(idle, tenant: tenant, user: user).map(\.id))
        }
        var node = Self.node("a")
        node.load.loopDelay = .milliseconds(250)
        #expect(node.isFull)
        node.load.loopDelay = .zero
        node.load.memory = 10
        node.capacity.memory = 10
        #expect(node.isFull)
    }
}
