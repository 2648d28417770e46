internal import Glibc
package import NIOCore

/// The system's routing table.
package enum SystemRoutes {
    /// The address, with port 0, that the machine would send from to a host. Nothing is sent.
    /// - Throws: the system's error, mostly that there is no route; also for an address that is neither IPv4 nor IPv6.
    package static func source(toward remote: SocketAddress) throws(IOError) -> SocketAddress {
        let isIPv6: Bool
        switch remote {
        case .v4: isIPv6 = false
        case .v6: isIPv6 = true
        case .unixDomainSocket: throw IOError(errnoCode: EAFNOSUPPORT, reason: "socket")
        }
        let descriptor = probe(isIPv6: isIPv6)
        guard descriptor >= 0 else { throw IOError(errnoCode: errno, reason: "socket") }
        defer { close(descriptor) }
        // Connecting a datagram socket only looks the route up.
        let connected = remote.withSockAddr { connect(descriptor, $0, socklen_t($1)) }
        guard connected == 0 else { throw IOError(errnoCode: errno, reason: "connect") }
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let named = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard named == 0 else { throw IOError(errnoCode: errno, reason: "getsockname") }
        var local: SocketAddress
        switch CInt(storage.ss_family) {
        case AF_INET: local = withUnsafeBytes(of: &storage) { SocketAddress($0.load(as: sockaddr_in.self), host: "") }
        case AF_INET6: local = withUnsafeBytes(of: &storage) { SocketAddress($0.load(as: sockaddr_in6.self), host: "") }
        default: throw IOError(errnoCode: EAFNOSUPPORT, reason: "getsockname")
        }
        local.port = 0
        return local
    }

    /// A socket to ask with; negative: there is none, and `errno` says why. A program that another thread starts meanwhile doesn't
    /// get it.
    package static func probe(isIPv6: Bool) -> CInt {
        socket(isIPv6 ? AF_INET6 : AF_INET, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }
}
