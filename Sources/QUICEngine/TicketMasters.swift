import CQUICShim

/// A ring's masters as one server configuration uses them: mixed with the transport limits it offers, so that a ticket
/// sealed under other limits doesn't open and its 0-RTT data can't exceed what is offered now (RFC 9000 section
/// 7.4.1).
final class TicketMasters {
    static let nameLength = 16

    private struct Derived {
        var source: TicketKeyRing.Master
        var master: [UInt8]
    }

    private let ring: TicketKeyRing
    private let limits: [UInt8]
    private var derived: [Derived] = []

    init(ring: TicketKeyRing, settings: TransportSettings) {
        self.ring = ring
        var writer = ByteWriter()
        writer.append(contentsOf: Array("longline ticket limits".utf8))
        for limit in [
            settings.connectionWindow, settings.streamWindow, settings.maxBidirectionalStreams,
            settings.maxUnidirectionalStreams, settings.maxDatagramFrameSize,
        ] {
            writer.append(limit)
        }
        limits = writer.bytes
    }

    /// The master for a client that offers a ticket under this key name, or offers none: the newest unless an older one
    /// fits. nil only if the TLS library fails.
    func master(sealedUnder name: [UInt8]?) -> [UInt8]? {
        refresh()
        if let name, derived.count > 1 {
            for candidate in derived where Self.names(of: candidate.master).contains(name) {
                return candidate.master
            }
        }
        return derived.first?.master
    }

    private func refresh() {
        let current = ring.current
        guard current != derived.map(\.source) else { return }
        derived = current.compactMap { source in
            TLSHash.hmacSHA512(key: source.key, data: limits).map { Derived(source: source, master: $0) }
        }
    }

    private static func names(of master: [UInt8]) -> [[UInt8]] {
        var names = [UInt8](repeating: 0, count: 2 * nameLength)
        guard llq_ticket_key_names(master, UInt32(TicketKeyRing.ticketLifetime), &names) == 0 else { return [] }
        return [Array(names[0..<nameLength]), Array(names[nameLength...])]
    }
}
