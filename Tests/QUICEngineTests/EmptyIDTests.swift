import LonglineTestKit
import Testing

@testable import QUICEngine

/// A client whose connection ID is empty, as browsers have it (RFC 9000 section 5.1): what comes for it is told by its address.
@Suite struct EmptyIDTests {
    /// Our client chooses no such ID. What the server sends is given to its connection here, whatever ID it goes to.
    private final class Client {
        let world: EngineWorld
        let connection: QUICEngineConnection
        private var inbox: [(bytes: [UInt8], local: QUICSocketAddress)] = []

        init(in world: EngineWorld) throws {
            self.world = world
            let configuration = world.clientConfiguration
            let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
            let trust = try TLSCredentials.client(configuration.verification, identity: configuration.identity)
            let priority = try TLSPriority.shared(configuration.cipherSuites)
            let original = pattern(18).withUnsafeBytes { ConnectionID($0) }
            let empty = pattern(1).withUnsafeBytes { ConnectionID(UnsafeRawBufferPointer(rebasing: $0[0..<0])) }
            let context = world.client.makeContext(server: nil, keyLog: nil, certificates: nil, qlog: nil)
            let shim = try ClientShim.make(
                client: configuration, alpn: ALPN.encode(configuration.applicationProtocols), trust: trust,
                priority: priority, context: context, path: path, id: empty, destination: original,
                now: world.network.now)
            connection = world.client.add(
                client: configuration, settings: configuration.transport, context: context,
                tlsObjects: [trust, priority], original: original, path: path, now: world.network.now)
            connection.shim = shim
            connection.processNotes()
            world.client.schedule(connection)
            world.network.filter = { [unowned self] bytes, path in
                guard path.local == EngineWorld.serverAddress else { return true }
                inbox.append((bytes, path.remote))
                return false
            }
        }

        /// - Returns: whether the condition came to hold.
        func run(milliseconds: Int, until condition: () -> Bool = { false }) -> Bool {
            for _ in 0..<milliseconds where !condition() {
                world.simulation.run(for: .milliseconds(1))
                let came = inbox
                inbox = []
                for (bytes, local) in came {
                    let path = QUICPath(local: local, remote: EngineWorld.serverAddress)
                    _ = bytes.withUnsafeBytes {
                        connection.receive($0, path: path, ecn: .notECT, now: world.network.now)
                    }
                }
            }
            return condition()
        }
    }

    @Test("a client with an empty connection ID moves as often as it likes") func moves() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let client = try Client(in: world)
        let isConfirmed = client.run(milliseconds: 500) {
            world.clientSide.confirmed.contains(client.connection.handle)
        }
        #expect(isConfirmed)
        let server = try #require(world.serverSide.connections.last)
        // So that it has IDs of the server's to move with.
        _ = client.run(milliseconds: 1000)
        for (round, port) in [UInt16](2000..<2006).enumerated() {
            let address = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: port)
            try client.connection.migrate(to: address, now: world.network.now)
            let stream = try client.connection.open()
            try client.connection.send(pattern(3000, round), on: stream, finish: true)
            _ = client.run(milliseconds: 1000) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(3000, round), "round \(round)")
            #expect(server.path.remote == address)
            // The path before is validated again meanwhile.
            _ = client.run(milliseconds: 300)
        }
        #expect(!client.connection.isClosed && !server.isClosed)
    }
}
