public import Glibc

/// An IPv4 or IPv6 address with a port.
public struct QUICSocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// The address in network order; an IPv4 address fills the upper 32 bits of `high`.
    let high: UInt64
    let low: UInt64
    /// The port.
    public var port: UInt16
    /// The interface of a link-local IPv6 address, else 0.
    public let scopeID: UInt32
    /// Whether this is an IPv6 address.
    public let isIPv6: Bool

    init(high: UInt64, low: UInt64, port: UInt16, scopeID: UInt32, isIPv6: Bool) {
        self.high = high
        self.low = low
        self.port = port
        self.scopeID = scopeID
        self.isIPv6 = isIPv6
    }

    /// An IPv4 address, for instance `(127, 0, 0, 1)`.
    public init(ipv4 bytes: (UInt8, UInt8, UInt8, UInt8), port: UInt16) {
        let value = UInt64(bytes.0) << 24 | UInt64(bytes.1) << 16 | UInt64(bytes.2) << 8 | UInt64(bytes.3)
        high = value << 32
        low = 0
        scopeID = 0
        isIPv6 = false
        self.port = port
    }

    /// An IPv6 address of 16 bytes; nil if `bytes` has another count.
    public init?(ipv6 bytes: [UInt8], port: UInt16, scopeID: UInt32 = 0) {
        guard bytes.count == 16 else { return nil }
        high = bytes[0..<8].reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
        self.scopeID = scopeID
        isIPv6 = true
        self.port = port
    }

    /// Reads a `sockaddr_in` or `sockaddr_in6`; nil for another family or a short length.
    public init?(sockaddr address: UnsafePointer<sockaddr>, length: Int) {
        let raw = UnsafeRawPointer(address)
        guard length >= MemoryLayout<sa_family_t>.size else { return nil }
        switch Int32(raw.loadUnaligned(as: SockaddrPrefix.self).family) {
        case AF_INET:
            guard length >= MemoryLayout<sockaddr_in>.size else { return nil }
            let value = raw.loadUnaligned(as: sockaddr_in.self)
            high = UInt64(UInt32(bigEndian: value.sin_addr.s_addr)) << 32
            low = 0
            scopeID = 0
            isIPv6 = false
            port = UInt16(bigEndian: value.sin_port)
        case AF_INET6:
            guard length >= MemoryLayout<sockaddr_in6>.size else { return nil }
            let value = raw.loadUnaligned(as: sockaddr_in6.self)
            (high, low) = withUnsafeBytes(of: value.sin6_addr) {
                (
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                )
            }
            scopeID = value.sin6_scope_id
            isIPv6 = true
            port = UInt16(bigEndian: value.sin6_port)
        default:
            return nil
        }
    }

    /// Parses a numeric host such as `192.0.2.1` or `2001:db8::1`; nil if it isn't one. Names are not resolved.
    public init?(numericHost: String, port: UInt16) {
        var v4 = in_addr()
        var v6 = in6_addr()
        if inet_pton(AF_INET, numericHost, &v4) == 1 {
            let value = UInt32(bigEndian: v4.s_addr)
            self.init(
                ipv4: (
                    UInt8(value >> 24), UInt8(truncatingIfNeeded: value >> 16), UInt8(truncatingIfNeeded: value >> 8),
                    UInt8(truncatingIfNeeded: value)
                ), port: port)
        } else if inet_pton(AF_INET6, numericHost, &v6) == 1 {
            self.init(ipv6: withUnsafeBytes(of: v6) { Array($0) }, port: port)
        } else {
            return nil
        }
    }

    /// Calls `body` with the address as the C library wants it; the pointer is valid during the call only.
    public func withSockaddr<Result>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Result
    ) rethrows -> Result {
        if isIPv6 {
            var value = sockaddr_in6()
            value.sin6_family = sa_family_t(AF_INET6)
            value.sin6_port = port.bigEndian
            value.sin6_scope_id = scopeID
            withUnsafeMutableBytes(of: &value.sin6_addr) {
                $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return try withUnsafePointer(to: &value) {
                try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    try body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
        }
        var value = sockaddr_in()
        value.sin_family = sa_family_t(AF_INET)
        value.sin_port = port.bigEndian
        value.sin_addr.s_addr = UInt32(high >> 32).bigEndian
        return try withUnsafePointer(to: &value) {
            try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    /// The host without the port, as `numericHost` would parse it.
    public var host: String {
        var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        withSockaddr { address, _ in
            if isIPv6 {
                address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { six in
                    var value = six.pointee.sin6_addr
                    _ = inet_ntop(AF_INET6, &value, &buffer, socklen_t(buffer.count))
                }
            } else {
                address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { four in
                    var value = four.pointee.sin_addr
                    _ = inet_ntop(AF_INET, &value, &buffer, socklen_t(buffer.count))
                }
            }
        }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// The address in network order: 4 or 16 bytes.
    var networkBytes: [UInt8] {
        let bytes = [high, low].flatMap { word in
            stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> UInt64($0)) }
        }
        return Array(bytes.prefix(isIPv6 ? 16 : 4))
    }

    /// The address without its port, for limits that count per host; IPv6 hosts of one /64 count as one.
    var hostKey: UInt64 { isIPv6 ? high : high | 1 }
}

/// What `sockaddr_in` and `sockaddr_in6` begin with on Linux.
private struct SockaddrPrefix {
    var family: sa_family_t
}

/// A pair of addresses that packets travel between.
public struct QUICPath: Hashable, Sendable {
    /// Our address: the socket a packet came in on or leaves by.
    public var local: QUICSocketAddress
    /// The peer's address.
    public var remote: QUICSocketAddress

    /// A path between two addresses.
    public init(local: QUICSocketAddress, remote: QUICSocketAddress) {
        self.local = local
        self.remote = remote
    }
}

/// The two ECN bits of an IP header (RFC 3168).
public enum ECNCodepoint: UInt8, Sendable {
    /// Not ECN-capable.
    case notECT = 0
    /// ECN-capable, codepoint 1.
    case ect1 = 1
    /// ECN-capable, codepoint 0.
    case ect0 = 2
    /// Congestion was experienced.
    case ce = 3
}
