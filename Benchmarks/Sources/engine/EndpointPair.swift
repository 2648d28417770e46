import QUICEngine

/// A client and a server whose datagrams are handed across at once. The clock is virtual: it goes on by a step with every
/// crossing and leaps to the next deadline when nothing is under way, so that pacing costs no waiting.
final class EndpointPair {
    private let client: QUICEndpoint
    private let server: QUICEndpoint
    private let clientConfiguration: ClientConfiguration
    private var now = QUICInstant(nanoseconds: 1_000_000_000)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
    private let chunk = [UInt8](repeating: 0x61, count: 64 << 10)
    private let sink = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

    private let serverAddress = QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 4433)
    private let clientAddress = QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50_000)

    private var connection: QUICEngineConnection?
    private var isConfirmed = false
    private var received = 0

    struct Failure: Error { let text: String }

    init(tls: TLSServerContext, certificate: DevelopmentCertificate) throws {
        var serving = ServerConfiguration(tls: tls)
        serving.transport.streamWindow = 4 << 20
        serving.transport.connectionWindow = 8 << 20
        var configuration = EndpointConfiguration()
        configuration.server = serving
        server = try QUICEndpoint(configuration: configuration, random: SystemRandomNumberGenerator())
        client = try QUICEndpoint(configuration: EndpointConfiguration(), random: SystemRandomNumberGenerator())
        clientConfiguration = ClientConfiguration(
            serverName: "localhost", applicationProtocols: ["benchmark"],
            verification: .pinnedPublicKey(sha256: [certificate.publicKeySHA256]))
    }

    deinit {
        buffer.deallocate()
        sink.deallocate()
    }

    /// Connects and waits until the handshake is confirmed.
    @discardableResult
    func connect() throws -> EndpointPair {
        isConfirmed = false
        connection = try client.connect(
            to: serverAddress, from: clientAddress, configuration: clientConfiguration, now: now)
        try run { isConfirmed }
        return self
    }

    func close() throws {
        connection?.close(code: 0, reason: "", now: now)
        connection = nil
        _ = cross(from: client, to: server)
        try drainEvents()
    }

    func openStream() throws -> QUICStreamID {
        guard let connection, let stream = try connection.openStream(bidirectional: false) else {
            throw Failure(text: "no stream")
        }
        return stream
    }

    /// Sends that many bytes, in writes of at most `piece`, and waits until the server has read them all.
    func send(bytes count: Int, on stream: QUICStreamID, piece: Int) throws -> Int {
        guard let connection else { throw Failure(text: "not connected") }
        let goal = received + count
        var left = count
        try run {
            while left > 0 {
                let size = min(left, piece)
                let accepted = try chunk.withUnsafeBytes { bytes in
                    try connection.write(
                        UnsafeRawBufferPointer(rebasing: bytes[..<size]), to: stream, finish: false)
                }
                left -= accepted
                if accepted < size { break }
            }
            return received >= goal
        }
        return count
    }

    /// Carries datagrams until `isDone` says so.
    private func run(until isDone: () throws -> Bool) throws {
        var idleSteps = 0
        while try !isDone() {
            let there = cross(from: client, to: server)
            try drainEvents()
            let back = cross(from: server, to: client)
            try drainEvents()
            now = now.advanced(byNanoseconds: 20_000)
            if there || back {
                idleSteps = 0
            } else {
                idleSteps += 1
                guard idleSteps < 10_000 else { throw Failure(text: "nothing moves any more") }
                let deadlines = [client.nextDeadline, server.nextDeadline].compactMap { $0 }
                if let next = deadlines.min() { now = max(now, next) }
            }
            client.handleDeadline(now: now)
            server.handleDeadline(now: now)
        }
    }

    private func cross(from sender: QUICEndpoint, to receiver: QUICEndpoint) -> Bool {
        var any = false
        while let run = sender.pollTransmit(into: buffer, now: now) {
            any = true
            let path = QUICPath(local: run.path.remote, remote: run.path.local)
            var start = 0
            while start < run.length {
                let end = min(start + run.segmentSize, run.length)
                receiver.receive(
                    UnsafeRawBufferPointer(rebasing: buffer[start..<end]), path: path, ecn: run.ecn, now: now)
                start = end
            }
        }
        return any
    }

    private func drainEvents() throws {
        while let (_, event) = client.pollEvent() {
            switch event {
            case .handshakeConfirmed: isConfirmed = true
            case .closed(let reason): if connection != nil { throw Failure(text: "closed: \(reason)") }
            default: break
            }
        }
        while let (connection, event) = server.pollEvent() {
            guard case .streamReadable(let stream) = event else { continue }
            while case let result = try connection.read(stream, into: sink), result.count > 0 {
                received += result.count
            }
        }
    }
}
