import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Several loops at one address", .timeLimit(.minutes(1)))
struct SteeringTests {
    /// Round trips from many client ports over a server of four loops.
    private func wander(
        steering: Bool, balanced: Bool = false, _ check: (QUICSocketCounters) -> Void
    ) async throws {
        var configuration = try serverConfiguration()
        configuration.sockets.kernelSteering = steering
        if balanced {
            configuration.endpoint.serverID = [1, 2]
            configuration.endpoint.loadBalancing = try QUICLoadBalancing(
                rotation: 0, key: [UInt8](repeating: 5, count: 16))
        }
        try await withPair(loops: 4, configuration: configuration, serve: echo) { client, listener, loop in
            for _ in 0..<5 {
                let connection = try await client.connect(to: listener, on: loop)
                try await connection.roundTrip()
                for _ in 0..<3 {
                    try await connection.rebind()
                    try await connection.roundTrip()
                }
                try await connection.migrate(to: loopback("127.0.0.2"))
                try await connection.roundTrip()
            }
            check(await listener.counters().sockets)
        }
    }

    @Test(
        "The kernel gives a datagram to the loop of its connection, from whatever port it comes",
        arguments: [false, true])
    func steered(balanced: Bool) async throws {
        try await wander(steering: true, balanced: balanced) {
            #expect($0.socketsSteered == 3)
            #expect($0.handedOver == 0)
        }
    }

    @Test("Without the kernel's help the loops hand over")
    func handedOver() async throws {
        try await wander(steering: false) {
            #expect($0.socketsSteered == 0)
            #expect($0.handedOver > 0)
            #expect($0.handoverDropped == 0)
        }
    }

    @Test("Loops whose sockets broke still find their connections")
    func brokenSockets() async throws {
        try await withPair(loops: 3, serve: echo) { client, listener, loop in
            var connections: [QUICConnection] = []
            for _ in 0..<9 { connections.append(try await client.connect(to: listener, on: loop)) }
            for _ in 0..<3 {
                await listener.breakSockets()
                for connection in connections { try await connection.roundTrip() }
            }
            #expect(await listener.counters().sockets.socketsRebound >= 3)
        }
    }

    @Test("An address in use is an error, also where loops share it")
    func addressInUse() async throws {
        try await withPair(loops: 2, serve: echo) { _, listener, _ in
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
            let error = await #expect(throws: QUICTransportError.self) {
                try await QUICListener.bind(
                    addresses: [loopback(port: listener.port)], configuration: serverConfiguration(), group: group)
            }
            #expect(error?.code == .bindFailed)
            #expect(error?.cause == "Address already in use")
            try await group.shutdownGracefully()
        }
    }
}
