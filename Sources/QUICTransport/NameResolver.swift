package import HostNames
internal import NIOCore
package import QUICEngine

/// Looks up the addresses of hosts, and remembers for each which one answered last.
package final class NameResolver: Sendable {
    /// Gives a name's addresses in the order of preference. Blocks.
    package typealias LookUp = @Sendable (_ host: String) throws -> [QUICSocketAddress]

    package typealias Limits = NameLookupLimits

    /// The process's own.
    package static let shared = NameResolver()

    private let lookups: NameLookups<QUICSocketAddress>

    private let translation: AddressTranslation

    package init(
        limits: Limits = Limits(), translation: AddressTranslation = .shared,
        lookUp: @escaping LookUp = NameResolver.askSystem
    ) {
        self.translation = translation
        lookups = NameLookups(limits: limits, threadNames: "quic-names-", lookUp: lookUp)
    }

    /// The addresses of a host in the order in which they are to be tried (RFC 8305 section 4). A numeric host is its only one, but where
    /// only a translator leads to it.
    func resolve(host: String, port: Int, on eventLoop: any EventLoop) -> EventLoopFuture<[SocketAddress]> {
        guard let port = UInt16(exactly: port) else {
            return eventLoop.makeFailedFuture(
                QUICTransportError(.resolveFailed, "\(port) isn't a port", advice: "Use a port from 1 to 65535."))
        }
        if let numeric = QUICSocketAddress(numericHost: host, port: port) {
            return translation.addresses(of: SocketAddress(numeric), on: eventLoop)
        }
        return lookups.ask(host, on: eventLoop).addresses
            .flatMapErrorThrowing { error in throw Self.worded(error, host) }
            .map { addresses in
                let preferred = self.lookups.preferred(of: host)
                return Self.order(addresses, first: preferred).map { SocketAddress($0.with(port: port)) }
            }
    }

    /// A server at this address of a host completed a handshake: the next attempts begin there, until the time is over; then the
    /// resolver's first gets its chance again.
    func answered(_ host: String, from address: SocketAddress) {
        guard let address = QUICSocketAddress(address)?.with(port: 0) else { return }
        lookups.answered(host, from: address)
    }

    /// The order of RFC 8305 section 4: families take turns, beginning with that of the resolver's first address, or of the one
    /// that answered last.
    static func order(_ addresses: [QUICSocketAddress], first: QUICSocketAddress?) -> [QUICSocketAddress] {
        var rest: [QUICSocketAddress] = []
        for address in addresses where !rest.contains(address) { rest.append(address) }
        if let first, let index = rest.firstIndex(of: first) { rest.insert(rest.remove(at: index), at: 0) }
        guard let leading = rest.first?.isIPv6 else { return [] }
        var ordered: [QUICSocketAddress] = []
        var families = [rest.filter { $0.isIPv6 == leading }[...], rest.filter { $0.isIPv6 != leading }[...]]
        while ordered.count < rest.count {
            for index in families.indices { if let next = families[index].popFirst() { ordered.append(next) } }
        }
        return ordered
    }

    /// What the system's resolver says, in its order.
    package static func askSystem(host: String) throws -> [QUICSocketAddress] {
        try SystemResolver.addresses(of: host, over: .udp).compactMap { QUICSocketAddress($0) }
    }

    /// The transport's error for a lookup without an answer.
    private static func worded(_ error: any Error, _ host: String) -> any Error {
        switch error as? NameLookupError {
        case .busy(let waiting):
            QUICTransportError(
                .resolverBusy, "\(host.printable) can't be looked up: \(waiting) names wait for the resolver",
                advice: "Check the resolver, and connect to fewer hosts at a time.")
        case .failed(let cause), .unavailable(let cause):
            QUICTransportError(
                .resolveFailed, "\(host.printable) could not be resolved", cause: cause,
                advice: "Check the name and the resolver.")
        case .nothingFound:
            QUICTransportError(.resolveFailed, "\(host.printable) has no address", advice: "Check the name.")
        case nil: error
        }
    }
}
