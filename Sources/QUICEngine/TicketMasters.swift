import CQUICShim

/// A ring's masters as one server configuration uses them: mixed with the transport limits it offers, so that a ticket
/// sealed under other limits doesn't open and its 0-RTT data can't exceed what is offered now (RFC 9000 section
/// 7.4.1), with what it asks of clients' certificates, with what else the application says, with the QUIC version (RFC 9369
/// section 5), and with the application protocol: 0-RTT data is of its ticket's (RFC 8446 section 4.2.10), and the TLS library
/// doesn't compare them.
final class TicketMasters {
    static let nameLength = 16

    private let ring: TicketKeyRing
    private let settings: [UInt8]
    /// The preferred first.
    private let protocols: [[UInt8]]
    private var sources: [TicketKeyRing.Master] = []
    /// The newest first.
    private var derived: [Use: [[UInt8]]] = [:]

    /// What a ticket is good for: a version and a protocol that the server speaks, of which there are few.
    private struct Use: Hashable {
        var version: UInt32
        var name: [UInt8]
    }

    init(
        ring: TicketKeyRing, settings: TransportSettings, protocols: [String],
        clients: TLSClientAuthentication = .none, context: [UInt8] = []
    ) {
        self.ring = ring
        self.protocols = protocols.map { Array($0.utf8) }
        var writer = ByteWriter()
        writer.append(contentsOf: Array("longline ticket limits".utf8))
        for limit in [
            settings.connectionWindow, settings.streamWindow, settings.maxBidirectionalStreams,
            settings.maxUnidirectionalStreams, settings.maxDatagramFrameSize,
        ] {
            writer.append(limit)
        }
        switch clients {
        case .none: break
        case .requested(let pem): writer.append(contentsOf: Array("requested\(pem)".utf8))
        case .required(let pem): writer.append(contentsOf: Array("required\(pem)".utf8))
        }
        if !context.isEmpty {
            writer.append(contentsOf: Array("context".utf8))
            writer.append(lengthPrefixed: context)
        }
        self.settings = writer.bytes
    }

    /// The application protocol that the TLS library will select for a client with this list: each name after its length.
    /// Empty: there is none in common, and the handshake will fail.
    func selected(from offered: [UInt8]) -> [UInt8] {
        var names: Set<[UInt8]> = []
        var reader = ByteReader(offered)
        while let length = reader.byte(), let name = reader.take(Int(length)) { names.insert(name) }
        return protocols.first { names.contains($0) } ?? []
    }

    /// The master for a client that offers a ticket under this key name, or offers none, and will speak this protocol. Its
    /// ticket must be of that and of the version that it began with; if it is not, or there is none, the master is for the
    /// ticket that it will get. nil only if the TLS library fails.
    func choose(
        sealedUnder name: [UInt8]?, for protocolName: [UInt8], first: UInt32, expected: UInt32
    ) -> (version: UInt32, master: [UInt8])? {
        func masters(of version: UInt32) -> [[UInt8]] { self.masters(for: Use(version: version, name: protocolName)) }
        if let name {
            let offered = masters(of: first)
            // Names tell nothing where there is no choice.
            if first == expected, offered.count == 1 { return (first, offered[0]) }
            if let sealed = offered.first(where: { Self.names(of: $0).contains(name) }) { return (first, sealed) }
            // A ticket of the other version stays closed, at the price of no new one.
            if first != expected, masters(of: expected).contains(where: { Self.names(of: $0).contains(name) }) {
                return offered.first.map { (first, $0) }
            }
        }
        return masters(of: expected).first.map { (expected, $0) }
    }

    private func masters(for use: Use) -> [[UInt8]] {
        let current = ring.current
        if current != sources {
            sources = current
            derived = [:]
        }
        if let known = derived[use] { return known }
        var writer = ByteWriter()
        writer.append(lengthPrefixed: settings)
        writer.append(UInt64(use.version))
        writer.append(lengthPrefixed: use.name)
        let made = current.compactMap { TLSHash.hmacSHA512(key: $0.key, data: writer.bytes) }
        derived[use] = made
        return made
    }

    private static func names(of master: [UInt8]) -> [[UInt8]] {
        var names = [UInt8](repeating: 0, count: 2 * nameLength)
        guard llq_ticket_key_names(master, UInt32(TicketKeyRing.ticketLifetime), &names) == 0 else { return [] }
        return [Array(names[0..<nameLength]), Array(names[nameLength...])]
    }
}
