package import NIOCore
internal import Synchronization

/// Finds the addresses at which a numeric IPv4 host is reached from a network that has IPv6 alone, as many mobile ones.
///
/// A name needs none of this: there the network's resolver answers with translated addresses by itself (DNS64).
/// ```
///  numeric IPv4 host --a route, or no IPv6--> itself
///         |
///         '--none, but IPv6--> the network's prefixes: remembered, or asked for (RFC 7050) --> itself, and one for each prefix
///                                                       '--no answer, or none in time: those that are known of it, however old
/// ```
package final class AddressTranslation: Sendable {
    private struct Known {
        var network: SocketAddress
        var prefixes: [TranslationPrefix]
        var at: NIODeadline
    }

    /// The process's own.
    package static let shared = AddressTranslation()

    /// For how long a network's prefixes hold. The name's records live for a day, and the network is known by an address that changes.
    private let memory: TimeAmount
    /// How long a resolver has for its answer. Who waits for one that is gone could be on the way to another host.
    private let patience: TimeAmount
    private let source: @Sendable (SocketAddress) -> SocketAddress?
    private let lookups: NameLookups<SocketAddress>
    /// Of the network that was asked last.
    private let known = Mutex<Known?>(nil)

    /// - Parameters:
    ///   - memory: for how long a network's prefixes hold.
    ///   - patience: how long a lookup is waited for; it goes on behind that, for the next who asks.
    ///   - source: the local address that leads to a host; nil: none does.
    ///   - lookUp: gives a name's addresses. Blocks.
    package init(
        memory: TimeAmount = .hours(1), patience: TimeAmount = NameLookupLimits().lastPatience,
        source: @escaping @Sendable (_ remote: SocketAddress) -> SocketAddress? = {
            try? SystemRoutes.source(toward: $0)
        },
        lookUp: @escaping NameLookups<SocketAddress>.LookUp = { try SystemResolver.addresses(of: $0, over: .udp) }
    ) {
        self.memory = memory
        self.patience = patience
        self.source = source
        var limits = NameLookupLimits()
        limits.threads = 3
        // What another network answered is wrong here.
        limits.memory = .zero
        limits.lastResort = .zero
        lookups = NameLookups(limits: limits, threadNames: "nat64-names-", lookUp: lookUp)
    }

    /// Where to try a numeric host, in this order; at least itself. Takes a lookup the first time in a network that translates, and never
    /// longer than its time.
    package func addresses(of host: SocketAddress, on eventLoop: any EventLoop) -> EventLoopFuture<[SocketAddress]> {
        guard case .v4 = host, source(host) == nil, let network = Self.anyIPv6.flatMap({ source($0) }) else {
            return eventLoop.makeSucceededFuture([host])
        }
        if let prefixes = self.prefixes(of: network, youngerThan: memory) {
            return eventLoop.makeSucceededFuture(Self.places(of: host, prefixes))
        }
        let places = eventLoop.makePromise(of: [SocketAddress].self)
        let limit = eventLoop.scheduleTask(in: patience) {
            places.succeed(Self.places(of: host, self.prefixes(of: network, youngerThan: nil) ?? []))
        }
        // Behind the limit, too: the next who asks is glad of the answer.
        lookups.ask(TranslationPrefix.knownName, on: eventLoop).addresses
            .map { found in Self.places(of: host, self.learn(from: found, in: network)) }
            // Where none is known: who has no route and no prefix is told the former.
            .recover { _ in Self.places(of: host, self.prefixes(of: network, youngerThan: nil) ?? []) }
            .whenComplete { result in
                limit.cancel()
                places.completeWith(result)
            }
        return places.futureResult
    }

    private static func places(of host: SocketAddress, _ prefixes: [TranslationPrefix]) -> [SocketAddress] {
        [host] + prefixes.compactMap { $0.translate(host) }
    }

    /// Reads a network's prefixes out of the known name's addresses there, and keeps them.
    private func learn(from found: [SocketAddress], in network: SocketAddress) -> [TranslationPrefix] {
        var prefixes: [TranslationPrefix] = []
        for prefix in found.compactMap({ TranslationPrefix(ofKnown: $0) }) where !prefixes.contains(prefix) {
            prefixes.append(prefix)
        }
        // Just after a change of network the resolver may still be another's, which knows of no prefix.
        guard !prefixes.isEmpty else { return [] }
        let answer = Known(network: network, prefixes: prefixes, at: .now())
        known.withLock { $0 = answer }
        return prefixes
    }

    /// An address that a network leads to if it has IPv6: the known name's own by the prefix that is everywhere the same (RFC 6052).
    private static let anyIPv6 = try? SocketAddress(ipAddress: "64:ff9b::c000:aa", port: 443)

    /// - Parameter age: nil: however old.
    private func prefixes(of network: SocketAddress, youngerThan age: TimeAmount?) -> [TranslationPrefix]? {
        known.withLock { known in
            guard let known, known.network == network else { return nil }
            if let age, NIODeadline.now() - known.at >= age { return nil }
            return known.prefixes
        }
    }
}
