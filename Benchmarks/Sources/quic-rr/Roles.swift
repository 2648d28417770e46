import BenchmarkHarness
import Foundation
import NIOCore
import NIOPosix
import PeerHarness
import QUICEngine
import QUICTransport

/// How the application sits on the transport.
enum API: String {
    /// Handlers on the loop.
    case loop
    /// Tasks on the global pool.
    case tasks
    /// Tasks that run on the connection's loop.
    case loopTasks
}

func runRole(_ role: Role) async throws {
    guard let api = role.arguments.first.flatMap(API.init) else { return }
    if role.name == "server" { return try await runServer(api) }
    guard role.arguments.count > 2, let port = Int(role.arguments[1]), let load = Load(role.arguments[2...]) else {
        return
    }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let times =
        try await api == .loop
        ? loopClient(load, port: port, on: group.next())
        : taskClient(load, port: port, on: group.next(), onLoop: api == .loopTasks)
    Role.report(
        "\(times.count) \(times.milliseconds(percentile: 50) * 1000) \(times.milliseconds(percentile: 99) * 1000)")
    exit(0)
}

private func runServer(_ api: API) async throws {
    var transport = TransportSettings()
    // A stream that ends makes room for the next only when the client has acknowledged its end.
    transport.maxBidirectionalStreams = 1024
    if api == .loop {
        return try await LoopServer.run(transport: transport) { _ in EchoHandler() }
    }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let listener = try await QUICListener.bind(
        addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)],
        configuration: try LoopServer.configuration(transport: transport), group: group)
    Role.report("\(listener.localAddresses.first?.port ?? 0)")
    try await serveWithTasks(listener, onLoop: api == .loopTasks)
}

private func clientConfiguration() -> ClientConfiguration {
    ClientConfiguration(
        serverName: "localhost", applicationProtocols: [LoopServer.applicationProtocol],
        verification: .insecureNoVerification)
}

private func loopClient(_ load: Load, port: Int, on loop: any EventLoop) async throws -> Latencies {
    let client = QUICClient()
    return try await loop.flatSubmit {
        let score = NIOLoopBound(Score(load), eventLoop: loop)
        let ends = (0..<load.connections).map { _ in
            let done = loop.makePromise(of: Void.self)
            _ = client.connect(
                host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop,
                handler: LoopLoad(load: load, score: score.value, done: done))
            return done.futureResult
        }
        return EventLoopFuture.andAllComplete(ends, on: loop).map { score.value.times }
    }.get()
}

private func taskClient(_ load: Load, port: Int, on loop: any EventLoop, onLoop: Bool) async throws -> Latencies {
    let client = QUICClient()
    let score = SharedScore(load)
    return try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<load.connections {
            let connection = try await client.connect(
                host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop)
            for _ in 0..<load.streams {
                group.addTask(executorPreference: onLoop ? connection.executor : nil) {
                    try await requestInTask(connection, load: load, score: score)
                }
            }
        }
        try await group.waitForAll()
        return score.times
    }
}
