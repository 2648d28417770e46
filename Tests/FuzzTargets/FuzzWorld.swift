import CQUICShim
import LonglineTestKit
import QUICEngine

/// A server that sends back what it reads, a client, and the network between them. Keys and certificates are made once for
/// the process, so that an input costs a handshake at most.
final class FuzzWorld {
    static let serverAddress = QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 4433)
    static let clientAddress = QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50000)
    /// The certificate is valid from long before until long after the machine's date.
    private static let certificate = Result {
        try DevelopmentCertificate.generate(
            names: ["server.test"], validDays: 20000, now: 1_000_000_000, keyKind: .ed25519)
    }

    let network: SimulatedNetwork
    let simulation: QUICSimulation
    let server: QUICEndpoint
    let client: QUICEndpoint
    let serverHost: QUICSimulation.Host
    let clientHost: QUICSimulation.Host
    private var clientConfiguration: ClientConfiguration
    private(set) var accepted: [QUICEngineConnection] = []
    private(set) var confirmed = 0
    private(set) var echoed = 0
    /// Why the client's last connection ended.
    private(set) var clientEnd: QUICCloseReason?
    private var ticket: SessionTicket?
    /// What the next connection writes as soon as it may, before the handshake.
    private var earlyBytes = 0
    /// Traces of all connections, if there are any.
    private let traces: TraceCheck?

    /// - Parameters:
    ///   - givesTickets: clients can come back with 0-RTT data.
    ///   - traces: qlog is on, on both sides.
    init(seed: UInt64, alwaysRetry: Bool = false, givesTickets: Bool = false, traces: Bool = false) throws {
        let certificate = try Self.certificate.get()
        network = SimulatedNetwork(seed: seed)
        simulation = QUICSimulation(network: network)
        var random = SeededRandom(seed: seed &+ 3)
        let tls = try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: ["fuzz"],
            ticketKeys: givesTickets ? TicketKeyRing(random: &random, now: llq_wall_clock()) : nil,
            replayStore: givesTickets ? ReplayStore(capacity: 100) : nil)
        var serving = ServerConfiguration(tls: tls)
        self.traces = traces ? TraceCheck() : nil
        serving.qlog = self.traces?.log
        if alwaysRetry { serving.retryThreshold = 0 }
        var configuration = EndpointConfiguration()
        configuration.server = serving
        configuration.staticKey = [UInt8](repeating: 7, count: 32)
        server = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: seed &+ 1))
        client = try QUICEndpoint(configuration: EndpointConfiguration(), random: SeededRandom(seed: seed &+ 2))
        clientConfiguration = ClientConfiguration(
            serverName: "server.test", applicationProtocols: ["fuzz"],
            verification: .certificateAuthority(pem: certificate.certificatePEM))
        // An input may wait for longer than connections live without a packet.
        clientConfiguration.transport.keepAliveInterval = .seconds(5)
        clientConfiguration.qlog = self.traces?.log
        serverHost = simulation.add(server, at: [Self.serverAddress])
        clientHost = simulation.add(client, at: [Self.clientAddress])
        serverHost.onEvent = { [unowned self] in handle($1, on: $0, echoes: true) }
        clientHost.onEvent = { [unowned self] in handle($1, on: $0, echoes: false) }
    }

    func connect() throws -> QUICEngineConnection {
        try client.connect(
            to: Self.serverAddress, from: Self.clientAddress, configuration: clientConfiguration, now: network.now)
    }

    /// A connection that resumes an earlier one, and sends so many bytes as 0-RTT data.
    func comeBack(sending count: Int) throws -> QUICEngineConnection {
        let first = try connect()
        guard simulation.run(for: .seconds(5), until: { self.ticket != nil }) else {
            throw FuzzFinding("no ticket: \(String(describing: clientEnd))")
        }
        first.close(code: 0, reason: "", now: network.now)
        simulation.run(for: .seconds(3))
        clientConfiguration.sessionTicket = ticket
        earlyBytes = count
        return try connect()
    }

    /// Sends bytes on a new stream; what isn't allowed isn't done.
    @discardableResult
    func send(_ count: Int, on connection: QUICEngineConnection, bidirectional: Bool, finish: Bool) -> QUICStreamID? {
        guard let stream = try? connection.openStream(bidirectional: bidirectional) else { return nil }
        let bytes = [UInt8](repeating: 0x5a, count: count)
        _ = try? bytes.withUnsafeBytes { try connection.write($0, to: stream, finish: finish) }
        return stream
    }

    /// The client vanishes, and time passes: nothing may be left.
    func checkNothingStays() throws {
        clientHost.isDown = true
        simulation.run(for: .seconds(200))
        guard server.connectionCount == 0 else {
            throw FuzzFinding("\(server.connectionCount) connections outlive their idle timeout")
        }
        try traces?.check()
    }

    private func handle(_ event: QUICConnectionEvent, on connection: QUICEngineConnection, echoes: Bool) {
        switch event {
        case .accepted: accepted.append(connection)
        case .handshakeConfirmed: confirmed += 1
        case .sessionTicket(let ticket): self.ticket = ticket
        case .earlyDataPossible where earlyBytes > 0:
            send(earlyBytes, on: connection, bidirectional: true, finish: true)
            earlyBytes = 0
        case .streamReadable(let id): drain(id, of: connection, echoes: echoes)
        case .closed(let reason) where !echoes: clientEnd = reason
        case .streamReset(let id, let code): connection.reset(id, code: code)
        default: break
        }
    }

    private func drain(_ id: QUICStreamID, of connection: QUICEngineConnection, echoes: Bool) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while let result = try? buffer.withUnsafeMutableBytes({ try connection.read(id, into: $0) }) {
            if !echoes { echoed += result.count }
            if echoes, id.isBidirectional {
                _ = try? buffer[0..<result.count].withUnsafeBytes {
                    try connection.write($0, to: id, finish: result.finished)
                }
            }
            if result.count == 0 || result.finished { return }
        }
    }
}
