import HostNames
import NIOCore

/// Asks the system which local address it would use, without sending anything.
enum RouteProbe {
    /// The local address, with port 0, so that a new socket draws one of its own, that leads to `remote` (`host:port`, numeric); nil
    /// when no route does.
    static func localAddress(towards remote: String) -> SocketAddress? {
        guard let target = AccessPoint(remote),
            let address = try? SocketAddress(ipAddress: target.host, port: target.port)
        else { return nil }
        return try? SystemRoutes.source(toward: address)
    }
}
