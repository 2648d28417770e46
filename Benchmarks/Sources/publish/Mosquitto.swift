import BenchmarkHarness
import Foundation
import NIOCore
import NIOPosix
import PeerHarness
import Synchronization

/// Eclipse Mosquitto from Debian, with two clients: QoS 1, a persistent session, plain TCP. It keeps messages in memory and saves
/// them now and then, so an acknowledgement doesn't mean that a message is on the disk.
final class Mosquitto: MessageService {
    let tally = Tally()
    private let broker: Mutex<ChildProcess>
    private let folder: URL
    private let group: MultiThreadedEventLoopGroup
    private let sender: NIOLoopBound<MQTTConnection>
    private let receiver: NIOLoopBound<MQTTConnection>
    private let loop: any EventLoop

    /// Starts it; nil if it isn't installed.
    static func start() async throws -> Mosquitto? {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .first { FileManager.default.isExecutableFile(atPath: $0) }
        guard let program else { return nil }
        let folder = FileManager.default.temporaryDirectory.appending(path: "longline-peer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let port = Int.random(in: 20_000..<32_000)
        // As root it would change to a user that can't write here.
        let settings = """
            user root
            listener \(port) 127.0.0.1
            allow_anonymous true
            persistence true
            persistence_location \(folder.path)/
            max_inflight_messages 1000
            max_queued_messages 0
            log_dest none
            set_tcp_nodelay true
            """
        let file = folder.appending(path: "mosquitto.conf")
        try settings.write(to: file, atomically: true, encoding: .utf8)
        let broker = try ChildProcess(program, ["-c", file.path], core: nil)
        try await Task.sleep(for: .milliseconds(500))
        return try await Mosquitto(broker: broker, folder: folder, port: port)
    }

    private init(broker: sending ChildProcess, folder: URL, port: Int) async throws {
        self.broker = Mutex(broker)
        self.folder = folder
        group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let tally = self.tally
        receiver = try await MQTTConnection.connect(
            port: port, clientID: "receiver", topic: "benchmark", subscribes: true, on: group.next()
        ) { tally.delivered($0) }
        loop = group.next()
        sender = try await MQTTConnection.connect(
            port: port, clientID: "sender", topic: "benchmark", subscribes: false, on: loop)
    }

    func publish(due: ContinuousClock.Instant) async throws {
        let payload = tally.payload(due: due)
        let sender = self.sender
        try await loop.flatSubmit { sender.value.publish(payload) }.get()
    }

    func end() async {
        for connection in [sender, receiver] { connection.execute { $0.close() } }
        try? await group.shutdownGracefully()
        broker.withLock { $0.kill() }
        try? FileManager.default.removeItem(at: folder)
    }
}

extension NIOLoopBound<MQTTConnection> {
    fileprivate func execute(_ body: @escaping @Sendable (MQTTConnection) -> Void) {
        let bound = self
        eventLoop.execute { body(bound.value) }
    }
}
