import BenchmarkHarness
import Foundation
import QUICEngine

/// A download over an impaired link in virtual time: the same numbers on every machine.
final class Download {
    struct Failure: Error { let text: String }

    private let client: QUICEndpoint
    private let server: QUICEndpoint
    private var toServer: ImpairedDirection
    private var toClient: ImpairedDirection
    private var now = QUICInstant(nanoseconds: 1_000_000_000)
    private let streams: Int
    private let bytesPerStream: Int
    private var unsent: [QUICStreamID: Int] = [:]
    private var received = 0
    private var finished = 0
    private let configuration: ClientConfiguration
    private let chunk = [UInt8](repeating: 0x61, count: 64 << 10)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

    init(
        _ control: TransportSettings.CongestionControl, streams: Int, bytes: Int, loss: Double, seed: UInt64,
        certificate: DevelopmentCertificate
    ) throws {
        var transport = TransportSettings()
        transport.congestionControl = control
        transport.streamWindow = 8 << 20
        transport.connectionWindow = 16 << 20
        transport.streamSendBuffer = 4 << 20
        var serving = ServerConfiguration(
            tls: try TLSServerContext(credentials: certificate.credentials, applicationProtocols: ["benchmark"]))
        serving.transport = transport
        var endpoint = EndpointConfiguration()
        endpoint.server = serving
        server = try QUICEndpoint(configuration: endpoint, random: SeededNumbers(seed: seed))
        client = try QUICEndpoint(configuration: EndpointConfiguration(), random: SeededNumbers(seed: seed + 1))
        var configuration = ClientConfiguration(
            serverName: "localhost", applicationProtocols: ["benchmark"],
            verification: .pinnedPublicKey(sha256: [certificate.publicKeySHA256]))
        configuration.transport = transport
        self.configuration = configuration
        self.streams = streams
        bytesPerStream = bytes / streams
        func direction(_ seed: UInt64) -> ImpairedDirection {
            ImpairedDirection(
                megabitsPerSecond: 100, delay: .milliseconds(25), queue: .milliseconds(50), loss: loss, seed: seed)
        }
        toServer = direction(seed + 2)
        toClient = direction(seed + 3)
    }

    deinit { buffer.deallocate() }

    /// - Returns: seconds of virtual time from the first packet to the last byte.
    func run() throws -> Double {
        let start = now
        let connection = try client.connect(
            to: QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 443),
            from: QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50_000), configuration: configuration, now: now)
        while finished < streams {
            try step(connection)
            guard now.nanoseconds - start.nanoseconds < 600_000_000_000 else {
                throw Failure(text: "ten minutes have passed, and \(received) bytes have come")
            }
        }
        return Double(now.nanoseconds - start.nanoseconds) / 1e9
    }

    private func step(_ connection: QUICEngineConnection) throws {
        try handleEvents(connection)
        transmit(from: client, over: &toServer)
        transmit(from: server, over: &toClient)
        try handleEvents(connection)
        let next = [client.nextDeadline, server.nextDeadline, toServer.nextArrival, toClient.nextArrival]
            .compactMap { $0 }.min()
        guard let next else { throw Failure(text: "nothing moves any more") }
        now = max(now, next)
        while let packet = toServer.receive(now: now) { deliver(packet, to: server) }
        while let packet = toClient.receive(now: now) { deliver(packet, to: client) }
        client.handleDeadline(now: now)
        server.handleDeadline(now: now)
    }

    private func deliver(_ packet: ImpairedDirection.Packet, to endpoint: QUICEndpoint) {
        packet.bytes.withUnsafeBytes { endpoint.receive($0, path: packet.path, ecn: packet.ecn, now: now) }
    }

    private func transmit(from endpoint: QUICEndpoint, over direction: inout ImpairedDirection) {
        while let run = endpoint.pollTransmit(into: buffer, now: now) {
            for start in stride(from: 0, to: run.length, by: run.segmentSize) {
                let end = min(start + run.segmentSize, run.length)
                direction.send(
                    UnsafeRawBufferPointer(rebasing: buffer[start..<end]), path: run.path, ecn: run.ecn, now: now)
            }
        }
    }

    private func handleEvents(_ connection: QUICEngineConnection) throws {
        while let (_, event) = client.pollEvent() {
            switch event {
            case .handshakeCompleted:
                for _ in 0..<streams {
                    guard let stream = try connection.openStream(bidirectional: true) else { continue }
                    _ = try [1].withUnsafeBytes { try connection.write($0, to: stream, finish: true) }
                }
            case .streamReadable(let stream):
                let read = try connection.read(stream, consuming: \.count)
                received += read.count
                if read.finished { finished += 1 }
            case .closed(let reason): throw Failure(text: "closed: \(reason)")
            default: break
            }
        }
        while let (connection, event) = server.pollEvent() {
            switch event {
            case .streamReadable(let stream):
                _ = try connection.read(stream, consuming: \.count)
                if unsent[stream] == nil { unsent[stream] = bytesPerStream }
                try push(stream, on: connection)
            case .streamWritable(let stream): try push(stream, on: connection)
            default: break
            }
        }
    }

    private func push(_ stream: QUICStreamID, on connection: QUICEngineConnection) throws {
        while let left = unsent[stream], left > 0 {
            let size = min(left, chunk.count)
            let taken = try chunk.withUnsafeBytes {
                try connection.write(UnsafeRawBufferPointer(rebasing: $0[..<size]), to: stream, finish: size == left)
            }
            unsent[stream] = left - taken
            if taken < size { return }
        }
    }
}
