import LonglineTestKit

@testable import QUICEngine

/// A server, a client and the network between them.
final class EngineWorld: CustomReflectable {
    var customMirror: Mirror { Mirror(self, children: [:]) }

    static let serverAddress = QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 4433)
    static let otherServerAddress = QUICSocketAddress(ipv4: (10, 0, 7, 1), port: 4434)
    static let clientAddress = QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50000)
    static let otherClientAddress = QUICSocketAddress(ipv4: (10, 0, 9, 9), port: 50001)
    static let serverAddress6 = address6(1, port: 4433)
    static let clientAddress6 = address6(2, port: 50000)
    static let otherClientAddress6 = address6(0x999, port: 50001)

    private static func address6(_ host: UInt16, port: UInt16) -> QUICSocketAddress {
        var bytes = [UInt8](repeating: 0, count: 16)
        bytes[0...3] = [0x20, 0x01, 0x0d, 0xb8]
        bytes[14] = UInt8(host >> 8)
        bytes[15] = UInt8(truncatingIfNeeded: host)
        guard let address = QUICSocketAddress(ipv6: bytes, port: port) else { preconditionFailure("16 bytes") }
        return address
    }

    /// Seconds since 1970, for certificates and keys.
    static let wallClock: UInt64 = 1_790_000_000
    static let certificate = makeCertificate(names: ["server.test", "10.0.0.1"])

    static func makeCertificate(names: [String]) -> DevelopmentCertificate {
        do {
            // Valid from long before until long after the machine's real date.
            return try DevelopmentCertificate.generate(
                names: names, validDays: 20000, now: 1_000_000_000, keyKind: .ed25519)
        } catch {
            preconditionFailure("no certificate: \(error)")
        }
    }

    let network: SimulatedNetwork
    let simulation: QUICSimulation
    var serverConfiguration: EndpointConfiguration
    let tls: TLSServerContext
    private(set) var server: QUICEndpoint
    private(set) var serverHost: QUICSimulation.Host
    let client: QUICEndpoint
    let clientHost: QUICSimulation.Host
    var clientConfiguration: ClientConfiguration
    private let seed: UInt64

    /// What each side saw.
    var clientSide = PeerRecord()
    var serverSide = PeerRecord()

    init(
        seed: UInt64 = 1, conditions: NetworkConditions = NetworkConditions(), tickets: Bool = false,
        maxBufferedBytes: Int? = nil, maxUnacknowledgedBytesPerAddress: Int? = nil,
        configure: (inout ServerConfiguration, inout ClientConfiguration) -> Void = { _, _ in }
    ) throws {
        self.seed = seed
        network = SimulatedNetwork(seed: seed, conditions: conditions)
        simulation = QUICSimulation(network: network)
        var random = SeededRandom(seed: seed &+ 1000)
        tls = try TLSServerContext(
            credentials: Self.certificate.credentials, applicationProtocols: ["test/1"],
            ticketKeys: tickets ? TicketKeyRing(random: &random, now: Self.wallClock) : nil,
            replayStore: tickets ? ReplayStore(capacity: 1000) : nil)
        var serving = ServerConfiguration(tls: tls)
        clientConfiguration = ClientConfiguration(
            serverName: "server.test", applicationProtocols: ["test/1"],
            verification: .certificateAuthority(pem: Self.certificate.certificatePEM))
        configure(&serving, &clientConfiguration)
        serverConfiguration = EndpointConfiguration()
        serverConfiguration.server = serving
        if let maxBufferedBytes { serverConfiguration.maxBufferedBytes = maxBufferedBytes }
        serverConfiguration.maxUnacknowledgedBytesPerAddress = maxUnacknowledgedBytesPerAddress
        serverConfiguration.staticKey = [UInt8](repeating: 7, count: 32)
        server = try QUICEndpoint(configuration: serverConfiguration, random: SeededRandom(seed: seed &+ 1))
        client = try QUICEndpoint(configuration: EndpointConfiguration(), random: SeededRandom(seed: seed &+ 2))
        serverHost = simulation.add(
            server, at: [Self.serverAddress, Self.otherServerAddress, Self.serverAddress6])
        clientHost = simulation.add(
            client,
            at: [Self.clientAddress, Self.otherClientAddress, Self.clientAddress6, Self.otherClientAddress6])
        attach()
    }

    private func attach() {
        clientHost.onEvent = { [unowned self] in clientSide.handle($1, on: $0) }
        serverHost.onEvent = { [unowned self] in serverSide.handle($1, on: $0) }
    }

    /// The server's process is killed and another started: it knows keys and configuration, and no connection.
    func restartServer() throws {
        simulation.remove(serverHost)
        server = try QUICEndpoint(configuration: serverConfiguration, random: SeededRandom(seed: seed &+ 77))
        serverHost = simulation.add(
            server, at: [Self.serverAddress, Self.otherServerAddress, Self.serverAddress6])
        serverSide = PeerRecord()
        attach()
    }

    /// Lets go of what each side saw, its connections included.
    func forget() {
        clientSide = PeerRecord()
        serverSide = PeerRecord()
    }

    func connect(
        from local: QUICSocketAddress = EngineWorld.clientAddress,
        to remote: QUICSocketAddress = EngineWorld.serverAddress
    ) throws -> QUICEngineConnection {
        try client.connect(
            to: remote, from: local, configuration: clientConfiguration, now: network.now)
    }

    /// Connects and waits until both sides have confirmed the handshake.
    func connected() throws -> (client: QUICEngineConnection, server: QUICEngineConnection) {
        let connection = try connect()
        let before = serverSide.connections.count
        let done = simulation.run(for: .seconds(20)) {
            clientSide.confirmed.contains(connection.handle) && serverSide.connections.count > before
        }
        guard done, let accepted = serverSide.connections.last else {
            throw Failure("no handshake: \(clientSide.closed) \(serverSide.closed)")
        }
        return (connection, accepted)
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }
}

/// What one side's connections reported, and what was read from their streams.
final class PeerRecord: CustomReflectable {
    var customMirror: Mirror { Mirror(self, children: [:]) }

    private(set) var connections: [QUICEngineConnection] = []
    private(set) var events: [QUICConnectionEvent] = []
    private(set) var confirmed: Set<ConnectionHandle> = []
    private(set) var handshakes: [ConnectionHandle: HandshakeInfo] = [:]
    private(set) var closed: [ConnectionHandle: QUICCloseReason] = [:]
    private(set) var opened: [QUICStreamID] = []
    private(set) var received: [QUICStreamID: [UInt8]] = [:]
    private(set) var finished: Set<QUICStreamID> = []
    private(set) var resets: [QUICStreamID: UInt64] = [:]
    private(set) var stops: [QUICStreamID: UInt64] = [:]
    private(set) var delivered: [QUICStreamID] = []
    private(set) var streamsClosed: Set<QUICStreamID> = []
    private(set) var datagrams: [[UInt8]] = []
    private(set) var earlyDatagrams: [[UInt8]] = []
    private(set) var datagramsAcknowledged: [UInt64] = []
    private(set) var datagramsLost: [UInt64] = []
    private(set) var datagramsExpired: [UInt64] = []
    private(set) var datagramSizes: [Int] = []
    private(set) var tickets: [SessionTicket] = []
    private(set) var tokens: [[UInt8]] = []
    private(set) var paths: [String] = []
    private(set) var earlyPossible = 0
    private(set) var earlyRejected = 0
    private(set) var sawEarlyBytes = false
    private(set) var writable: [QUICStreamID] = []
    private(set) var streamsAvailable = 0

    /// Streams are read as soon as they can be.
    var reads = true
    /// The sending side of a stream that the peer reset is reset too; ngtcp2 0.12 ends it by itself if nothing else came.
    var answersResets = false
    /// What is read is sent back on the same stream.
    var echoes = false
    private var owed: [QUICStreamID: (bytes: [UInt8], finish: Bool)] = [:]

    func handle(_ event: QUICConnectionEvent, on connection: QUICEngineConnection) {
        events.append(event)
        switch event {
        case .accepted: connections.append(connection)
        case .earlyDataPossible: earlyPossible += 1
        case .earlyDataRejected: earlyRejected += 1
        case .handshakeCompleted(let info): handshakes[connection.handle] = info
        case .handshakeConfirmed: confirmed.insert(connection.handle)
        case .streamOpened(let id): opened.append(id)
        case .streamReadable(let id): if reads { drain(id, of: connection) }
        case .streamWritable(let id):
            writable.append(id)
            pay(id, on: connection)
        case .streamReset(let id, let code):
            resets[id] = code
            if answersResets { connection.reset(id, code: code) }
        case .stopSending(let id, let code): stops[id] = code
        case .streamDelivered(let id): delivered.append(id)
        case .streamClosed(let id): streamsClosed.insert(id)
        case .streamsAvailable: streamsAvailable += 1
        case .datagram(let bytes, let isEarly):
            datagrams.append(bytes)
            if isEarly { earlyDatagrams.append(bytes) }
        case .datagramAcknowledged(let id): datagramsAcknowledged.append(id)
        case .datagramLost(let id): datagramsLost.append(id)
        case .datagramExpired(let id): datagramsExpired.append(id)
        case .maxDatagramSizeChanged(let size): datagramSizes.append(size)
        case .sessionTicket(let ticket): tickets.append(ticket)
        case .addressToken(let token): tokens.append(token)
        case .pathValidated(let path): paths.append("validated \(path.local) \(path.remote)")
        case .pathFailed(let path): paths.append("failed \(path.local) \(path.remote)")
        case .pathChanged(let path): paths.append("changed \(path.local) \(path.remote)")
        case .closed(let reason): closed[connection.handle] = reason
        }
    }

    func drain(_ id: QUICStreamID, of connection: QUICEngineConnection, limit: Int = .max) {
        var left = limit
        var buffer = [UInt8](repeating: 0, count: 10_000)
        while left > 0 {
            if connection.isEarly(id), connection.readableBytes(id) > 0 { sawEarlyBytes = true }
            let size = min(left, buffer.count)
            guard
                let result = try? buffer.withUnsafeMutableBytes({
                    try connection.read(id, into: UnsafeMutableRawBufferPointer(rebasing: $0[0..<size]))
                })
            else { return }
            left -= result.count
            received[id, default: []].append(contentsOf: buffer[0..<result.count])
            if result.finished { finished.insert(id) }
            if echoes, id.isBidirectional {
                owed[id, default: ([], false)].bytes.append(contentsOf: buffer[0..<result.count])
                if result.finished { owed[id]?.finish = true }
                pay(id, on: connection)
            }
            if result.count == 0 || result.finished { return }
        }
    }

    private func pay(_ id: QUICStreamID, on connection: QUICEngineConnection) {
        guard let debt = owed[id] else { return }
        let sent = (try? connection.send(debt.bytes, on: id, finish: debt.finish)) ?? 0
        if sent == debt.bytes.count { owed[id] = nil } else { owed[id]?.bytes.removeFirst(sent) }
    }
}

extension QUICEngineConnection {
    /// Writes as much as is accepted.
    @discardableResult
    func send(_ bytes: [UInt8], on stream: QUICStreamID, finish: Bool = false) throws -> Int {
        try bytes.withUnsafeBytes { try write($0, to: stream, finish: finish) }
    }

    /// Queues a datagram.
    func offer(_ bytes: [UInt8], id: UInt64) throws -> Bool {
        try bytes.withUnsafeBytes { try sendDatagram($0, id: id) }
    }

    func open(bidirectional: Bool = true) throws -> QUICStreamID {
        guard let id = try openStream(bidirectional: bidirectional) else {
            throw EngineWorld.Failure("no stream credit")
        }
        return id
    }
}

/// Bytes that tell where they belong.
func pattern(_ count: Int, _ salt: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ salt) }
}

/// Writes a whole array over time, as the connection takes it.
final class Sender {
    private var rest: ArraySlice<UInt8>
    private let stream: QUICStreamID
    private let connection: QUICEngineConnection
    private(set) var isDone = false

    init(_ bytes: [UInt8], on stream: QUICStreamID, of connection: QUICEngineConnection) {
        rest = bytes[...]
        self.stream = stream
        self.connection = connection
    }

    func step() throws {
        guard !isDone, connection.writableBytes(stream) > 0 else { return }
        let sent = try rest.withUnsafeBytes { try connection.write($0, to: stream, finish: true) }
        rest = rest.dropFirst(sent)
        isDone = rest.isEmpty
    }
}
