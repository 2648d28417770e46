package import HostNames
package import NIOCore
import NIOPosix

/// Looks up the hosts of endpoints.
///
/// NIO's own resolver has one lookup at a time on each event loop: a name server that is gone would hold up the connections to
/// every other host.
package final class HostResolver: Sendable {
    /// Gives a name's addresses in the order of preference; their ports don't count. Blocks.
    package typealias LookUp = NameLookups<SocketAddress>.LookUp

    /// Threads for a dozen names whose name servers are gone, however often these are asked for, before other names wait
    /// behind them; and three for asking anew, when a name server is back that lookups still wait for.
    package static let standardLimits: NameLookupLimits = {
        var limits = NameLookupLimits()
        limits.threads = 16
        limits.threadsLeft = 12
        limits.queue = 256
        limits.names = 256
        // A service has its network always, and what it asks need not be behind TLS.
        limits.lastResort = limits.memory
        return limits
    }()

    /// The process's own.
    package static let shared = HostResolver()

    private let lookups: NameLookups<SocketAddress>

    private let translation: AddressTranslation

    package init(
        limits: NameLookupLimits = HostResolver.standardLimits, translation: AddressTranslation = .shared,
        lookUp: @escaping LookUp = { try SystemResolver.addresses(of: $0, over: .tcp) }
    ) {
        self.translation = translation
        lookups = NameLookups(limits: limits, threadNames: "http-names-", lookUp: lookUp)
    }

    /// What NIO asks for one connection. A numeric host is its only address, and nobody is asked, but where only a translator leads to it.
    func query(host: String, port: Int, on eventLoop: any EventLoop) -> HostQuery {
        if let numeric = try? SocketAddress(ipAddress: host, port: port) {
            return HostQuery(addresses: translation.addresses(of: numeric, on: eventLoop)) {}
        }
        let (lookups, question) = (lookups, lookups.ask(host, on: eventLoop))
        let addresses = question.addresses.map { found in
            found.map { address in
                var address = address
                address.port = port
                return address
            }
        }
        return HostQuery(addresses: addresses) { lookups.leave(question) }
    }
}

/// The addresses of one host, for one connection.
final class HostQuery: Resolver, Sendable {
    private let addresses: EventLoopFuture<[SocketAddress]>
    private let leave: @Sendable () -> Void

    /// - Parameter leave: called when nobody waits any more.
    init(addresses: EventLoopFuture<[SocketAddress]>, leave: @escaping @Sendable () -> Void) {
        self.addresses = addresses
        self.leave = leave
    }

    func initiateAQuery(host: String, port: Int) -> EventLoopFuture<[SocketAddress]> { found(.inet) }

    func initiateAAAAQuery(host: String, port: Int) -> EventLoopFuture<[SocketAddress]> { found(.inet6) }

    func cancelQueries() { leave() }

    private func found(_ family: NIOBSDSocket.ProtocolFamily) -> EventLoopFuture<[SocketAddress]> {
        addresses.map { addresses in addresses.filter { $0.protocol == family } }
    }
}
