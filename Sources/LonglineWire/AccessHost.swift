import NIOCore

/// The rule for hosts that clients are told to connect to, which the service and the clients share.
package enum AccessHost {
    /// Whether this is a name in ASCII or a numeric address, without brackets. Only an IPv6 address has colons.
    package static func isValid(_ text: String) -> Bool {
        guard (1...253).contains(text.utf8.count),
            text.utf8.allSatisfy({ (0x21...0x7e).contains($0) && !"[]/@?#".utf8.contains($0) })
        else { return false }
        return !text.utf8.contains(UInt8(ascii: ":")) || (try? SocketAddress(ipAddress: text, port: 0)) != nil
    }
}
