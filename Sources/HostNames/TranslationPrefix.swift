package import NIOCore

/// How a network without IPv4 makes IPv4 hosts reachable: by IPv6 addresses that a translator knows by their prefix (NAT64, RFC 6052).
package struct TranslationPrefix: Hashable, Sendable {
    /// A name with IPv4 addresses only. Where it has IPv6 ones, the network's resolver made them, with the translator's prefix (RFC 7050).
    package static let knownName = "ipv4only.arpa"
    /// The addresses that it has everywhere (RFC 7050 section 2.2).
    private static let knownHosts: [[UInt8]] = [[192, 0, 0, 170], [192, 0, 0, 171]]
    /// Where an IPv6 address has the four bytes of the other, for each length of the prefix in bytes (RFC 6052 section 2.2).
    private static let places: [(length: Int, bytes: [Int])] = [
        (12, [12, 13, 14, 15]), (8, [9, 10, 11, 12]), (7, [7, 9, 10, 11]), (6, [6, 7, 9, 10]), (5, [5, 6, 7, 9]),
        (4, [4, 5, 6, 7]),
    ]

    private let prefix: [UInt8]
    private let place: [Int]

    /// Reads it out of an IPv6 address of ``knownName``; nil where none of its hosts is in there, or the place is open to doubt.
    package init?(ofKnown address: SocketAddress) {
        guard let bytes = address.hostBytes, bytes.count == 16 else { return nil }
        let found = Self.places.filter { place in Self.knownHosts.contains(place.bytes.map { bytes[$0] }) }
        guard let place = found.first, found.count == 1 else { return nil }
        prefix = Array(bytes.prefix(place.length))
        self.place = place.bytes
    }

    /// The IPv6 address, with the same port, by which an IPv4 host is reached; nil for another host.
    package func translate(_ host: SocketAddress) -> SocketAddress? {
        guard let four = host.hostBytes, four.count == 4 else { return nil }
        var bytes = prefix + Array(repeating: 0, count: 16 - prefix.count)
        for (index, byte) in zip(place, four) { bytes[index] = byte }
        return try? SocketAddress(packedIPAddress: ByteBuffer(bytes: bytes), port: host.port ?? 0)
    }
}

extension SocketAddress {
    /// The host in network order, 4 or 16 bytes; nil for a Unix-domain address.
    fileprivate var hostBytes: [UInt8]? {
        let place: Range<Int>
        switch self {
        case .v4: place = 4..<8
        case .v6: place = 8..<24
        case .unixDomainSocket: return nil
        }
        return withSockAddr { pointer, size in Array(UnsafeRawBufferPointer(start: pointer, count: size)[place]) }
    }
}
