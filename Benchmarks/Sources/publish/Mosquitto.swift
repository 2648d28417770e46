import BenchmarkHarness
import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import PeerHarness
import QUICEngine
import Synchronization

/// Eclipse Mosquitto from Debian, with two clients: QoS 1, a persistent session. It keeps messages in memory and saves them now and
/// then, so an acknowledgement doesn't mean that a message is on the disk.
final class Mosquitto: MessageService {
    /// How it is set up.
    enum Kind: String, CaseIterable {
        /// Over plain TCP.
        case plain
        /// Over TLS.
        case tls
        /// Over TLS, and it writes its database and syncs it whenever that changed: as near as it comes to what is durable. It
        /// still acknowledges before.
        case saved

        /// Before the names of its figures.
        var prefix: String { self == .plain ? "" : "\(rawValue)_" }

        var title: String {
            switch self {
            case .plain: "mosquitto"
            case .tls: "mosquitto with TLS"
            case .saved: "mosquitto with TLS, saved at each change"
            }
        }
    }

    let tally = Tally()
    private let broker: Mutex<ChildProcess>
    private let folder: URL
    private let group: MultiThreadedEventLoopGroup
    private let sender: NIOLoopBound<MQTTConnection>
    private let receiver: NIOLoopBound<MQTTConnection>
    private let loop: any EventLoop

    /// Starts it; nil if it isn't installed.
    static func start(_ kind: Kind) async throws -> Mosquitto? {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .first { FileManager.default.isExecutableFile(atPath: $0) }
        guard let program else { return nil }
        let folder = FileManager.default.benchmarkFolder("peer")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let port = Int.random(in: 20_000..<32_000)
        let now = UInt64(Date().timeIntervalSince1970)
        let identity = try DevelopmentCertificate.generate(names: ["localhost"], now: now)
        let file = folder.appending(path: "mosquitto.conf")
        try settings(kind, port: port, folder: folder, identity).write(to: file, atomically: true, encoding: .utf8)
        let broker = try ChildProcess(program, ["-c", file.path], core: nil)
        try await Task.sleep(for: .milliseconds(500))
        try broker.requireRunning("mosquitto")
        return try await Mosquitto(
            broker: broker, folder: folder, port: port, tls: kind == .plain ? nil : clientContext(identity))
    }

    private static func settings(
        _ kind: Kind, port: Int, folder: URL, _ identity: DevelopmentCertificate
    ) throws -> String {
        // As root it would change to a user that can't write here.
        var settings = """
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
        if kind != .plain {
            let (certificate, key) = (folder.appending(path: "cert.pem"), folder.appending(path: "key.pem"))
            try identity.certificatePEM.write(to: certificate, atomically: true, encoding: .utf8)
            try identity.privateKeyPEM.write(to: key, atomically: true, encoding: .utf8)
            settings += "certfile \(certificate.path)\nkeyfile \(key.path)\n"
        }
        if kind == .saved { settings += "autosave_on_changes true\nautosave_interval 1\n" }
        return settings
    }

    private static func clientContext(_ identity: DevelopmentCertificate) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(
            try NIOSSLCertificate.fromPEMBytes(Array(identity.certificatePEM.utf8)))
        return try NIOSSLContext(configuration: configuration)
    }

    private init(broker: sending ChildProcess, folder: URL, port: Int, tls: NIOSSLContext?) async throws {
        self.broker = Mutex(broker)
        self.folder = folder
        group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let tally = self.tally
        receiver = try await MQTTConnection.connect(
            port: port, tls: tls, clientID: "receiver", topic: "benchmark", subscribes: true, on: group.next()
        ) { tally.delivered($0) }
        loop = group.next()
        sender = try await MQTTConnection.connect(
            port: port, tls: tls, clientID: "sender", topic: "benchmark", subscribes: false, on: loop)
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
