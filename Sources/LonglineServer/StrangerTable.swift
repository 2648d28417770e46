import Synchronization

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Counts the links of each remote address that haven't been accepted yet, so that one address can't take the room that
/// all strangers share.
///
/// An address is an IPv4 address or an IPv6 network of 64 bits, which is what one subscriber has. Only links that were
/// let in count, so the table has at most ``ServerLimits/maximumUnauthenticated`` entries.
final class StrangerTable: Sendable {
    private let counts = Mutex<[String: Int]>([:])

    /// Counts a link in.
    /// - Returns: false, and counts nothing, when the address has `limit` of them.
    func add(_ address: String, limit: Int) -> Bool {
        counts.withLock { counts in
            let count = counts[address, default: 0]
            guard count < limit else { return false }
            counts[address] = count + 1
            return true
        }
    }

    /// A link that was counted in was accepted, or is gone.
    func remove(_ address: String) {
        counts.withLock { counts in
            guard let count = counts[address] else { return assertionFailure("\(address) was not counted") }
            counts[address] = count > 1 ? count - 1 : nil
        }
    }

    /// Such links of an address now.
    func count(of address: String) -> Int { counts.withLock { $0[address, default: 0] } }

    /// Addresses that have such links now.
    var addressCount: Int { counts.withLock { $0.count } }

    /// What counts as one address, of a link's `host:port` or `[host]:port`.
    static func address(of remote: String) -> String {
        guard let colon = remote.lastIndex(of: ":") else { return remote }
        let host = remote[..<colon]
        guard host.first == "[" else { return String(host) }
        let numeric = host.dropFirst().prefix { $0 != "]" && $0 != "%" }
        var bytes = [UInt8](repeating: 0, count: 16)
        guard inet_pton(AF_INET6, String(numeric), &bytes) == 1 else { return String(numeric) }
        // ::ffff:a.b.c.d is an IPv4 address: all of them would be one network.
        if bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
            return bytes.suffix(4).map { "\($0)" }.joined(separator: ".")
        }
        let groups = stride(from: 0, to: 8, by: 2).map {
            String(UInt16(bytes[$0]) << 8 | UInt16(bytes[$0 + 1]), radix: 16)
        }
        return groups.joined(separator: ":") + "::/64"
    }
}
