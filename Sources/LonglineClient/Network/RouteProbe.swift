import Glibc
import NIOCore

/// Asks the system which local address it would use, without sending anything.
enum RouteProbe {
    /// The local address, with port 0, that leads to `remote` (`host:port`, numeric); nil when no route does.
    static func localAddress(towards remote: String) -> SocketAddress? {
        guard let target = AccessPoint(remote),
            let address = try? SocketAddress(ipAddress: target.host, port: target.port)
        else { return nil }
        let family: CInt =
            switch address {
            case .v6: AF_INET6
            default: AF_INET
            }
        let descriptor = socket(family, CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        // Connecting a datagram socket only looks the route up.
        let connected = address.withSockAddr { connect(descriptor, $0, socklen_t($1)) }
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
        // The new socket draws a port of its own.
        local?.port = 0
        return local
    }
}
