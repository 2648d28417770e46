import CQUICShim

/// A ring's masters as one server configuration uses them: mixed with the transport limits it offers, so that a ticket
/// sealed under other limits doesn't open and its 0-RTT data can't exceed what is offered now (RFC 9000 section
/// 7.4.1), with what it asks of clients' certificates, and with the QUIC version (RFC 9369 section 5).
final class TicketMasters {
    static let nameLength = 16

    private let ring: TicketKeyRing
    private let settings: [UInt8]
    private var sources: [TicketKeyRing.Master] = []
    /// By version, which is one that the server speaks; the newest first.
    private var derived: [UInt32: [[UInt8]]] = [:]

    init(ring: TicketKeyRing, settings: TransportSettings, clients: TLSClientAuthentication = .none) {
        self.ring = ring
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
        self.settings = writer.bytes
    }

    /// The master for a client that offers a ticket under this key name, or offers none. Its ticket must be of the version
    /// that it began with; if it is not, or there is none, the master is for the ticket that it will get. nil only if
    /// the TLS library fails.
    func choose(sealedUnder name: [UInt8]?, first: UInt32, expected: UInt32) -> (version: UInt32, master: [UInt8])? {
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

    private func masters(of version: UInt32) -> [[UInt8]] {
        let current = ring.current
        if current != sources {
            sources = current
            derived = [:]
        }
        if let known = derived[version] { return known }
        var data = settings
        // Tickets of version 1 are older than this rule.
        if version != QUICVersion.v1.rawValue {
            var writer = ByteWriter()
            writer.append(UInt64(version))
            data += writer.bytes
        }
        let made = current.compactMap { TLSHash.hmacSHA512(key: $0.key, data: data) }
        derived[version] = made
        return made
    }

    private static func names(of master: [UInt8]) -> [[UInt8]] {
        var names = [UInt8](repeating: 0, count: 2 * nameLength)
        guard llq_ticket_key_names(master, UInt32(TicketKeyRing.ticketLifetime), &names) == 0 else { return [] }
        return [Array(names[0..<nameLength]), Array(names[nameLength...])]
    }
}
