internal import Glibc
package import NIOCore

/// The system's routing table.
package enum SystemRoutes {
    /// The address, with port 0, that the machine would send from to a host; nil: there is no route to it. Nothing is sent.
    package static func source(toward remote: SocketAddress) -> SocketAddress? {
        let family: CInt
        switch remote {
        case .v4: family = AF_INET
        case .v6: family = AF_INET6
        case .unixDomainSocket: return nil
        }
        let descriptor = socket(family, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        // Connecting a datagram socket only looks the route up.
        let connected = remote.withSockAddr { connect(descriptor, $0, socklen_t($1)) }
        guard connected == 0 else { return nil }
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let named = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard named == 0 else { return nil }
        var local: SocketAddress?
        switch CInt(storage.ss_family) {
        case AF_INET: local = withUnsafeBytes(of: &storage) { SocketAddress($0.load(as: sockaddr_in.self), host: "") }
        case AF_INET6: local = withUnsafeBytes(of: &storage) { SocketAddress($0.load(as: sockaddr_in6.self), host: "") }
        default: return nil
        }
        local?.port = 0
        return local
    }
}
