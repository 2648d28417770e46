internal import Glibc
package import NIOCore
internal import NIOPosix
package import QUICEngine
internal import Synchronization

/// Looks up the addresses of hosts, and remembers for each which one answered last.
///
/// `getaddrinfo` waits up to half a minute for a resolver that is gone, and nothing can stop it meanwhile. It therefore runs on
/// threads of its own, where it holds up nobody else's work:
/// ```
///  asked ──the same name is being looked up, not for long yet──> joins ─┐
///    ├────a thread, or a place in the queue──> begins ──────────────────┼─> answer: to all who wait for the name
///    └────neither──> resolverBusy                                       └─> no answer in time, an older one known: that one
/// ```
package final class NameResolver: Sendable {
    /// Gives a name's addresses in the order of preference. Blocks.
    package typealias LookUp = @Sendable (_ host: String) throws -> [QUICSocketAddress]

    package struct Limits: Sendable {
        /// Lookups at a time.
        package var threads = 4
        /// Lookups that wait for a thread.
        package var queue = 64
        /// After this time a lookup may hang: an older answer is used instead of waiting on, and who asks anew isn't made to
        /// wait for it. The network that it asked may be gone.
        package var patience = TimeAmount.seconds(1)
        /// How old an answer may be that takes the place of one that doesn't come, and how long the address that answered last
        /// goes before the resolver's first.
        package var memory = TimeAmount.hours(1)
        /// Names that something is remembered of; the one that was looked up longest ago goes first.
        package var names = 64

        package init() {}
    }

    /// The process's own.
    package static let shared = NameResolver()

    private struct Lookup {
        var number: UInt64
        var beganAt: NIODeadline
        var waiting: [UInt64: EventLoopPromise<[QUICSocketAddress]>] = [:]
    }

    private struct Known {
        var addresses: [QUICSocketAddress]
        var at: NIODeadline
        var preferred: (address: QUICSocketAddress, since: NIODeadline)?
    }

    private struct State {
        var lookups: [String: [Lookup]] = [:]
        /// Those that have a thread or wait for one.
        var count = 0
        var numbers: UInt64 = 0
        var known: [String: Known] = [:]
    }

    private enum Turn {
        case joined
        case begins(UInt64)
        case refused
    }

    private let limits: Limits
    private let lookUp: LookUp
    private let pool: NIOThreadPool
    private let state = Mutex(State())

    package init(limits: Limits = Limits(), lookUp: @escaping LookUp = NameResolver.askSystem) {
        self.limits = limits
        self.lookUp = lookUp
        pool = NIOThreadPool(numberOfThreads: limits.threads)
    }

    deinit { pool.shutdownGracefully { _ in } }

    // MARK: Asking

    /// The addresses of a host in the order in which they are to be tried (RFC 8305 section 4). A numeric host is its only one.
    func resolve(host: String, port: Int, on eventLoop: any EventLoop) -> EventLoopFuture<[SocketAddress]> {
        guard let port = UInt16(exactly: port) else {
            return eventLoop.makeFailedFuture(
                QUICTransportError(.resolveFailed, "\(port) isn't a port", advice: "Use a port from 1 to 65535."))
        }
        if let numeric = QUICSocketAddress(numericHost: host, port: port) {
            return eventLoop.makeSucceededFuture([SocketAddress(numeric)])
        }
        return addresses(of: host, on: eventLoop).map { addresses in
            let preferred = self.preferred(of: host)
            return Self.order(addresses, first: preferred).map { SocketAddress($0.with(port: port)) }
        }
    }

    private func addresses(of host: String, on eventLoop: any EventLoop) -> EventLoopFuture<[QUICSocketAddress]> {
        let promise = eventLoop.makePromise(of: [QUICSocketAddress].self)
        let (key, now) = (host.lowercased(), NIODeadline.now())
        let (waiter, turn, isKnown) = state.withLock { state in
            let isKnown = state.known[key] != nil
            state.numbers += 1
            return (state.numbers, enter(promise, for: key, now: now, &state), isKnown)
        }
        switch turn {
        case .refused:
            promise.fail(
                QUICTransportError(
                    .resolverBusy, "\(host.printable) can't be looked up: \(limits.queue) names wait for the resolver",
                    advice: "Check the resolver, and connect to fewer hosts at a time."))
            return promise.futureResult
        case .joined: break
        case .begins(let number):
            // At first use; does nothing later.
            pool._start(threadNamePrefix: "quic-names-")
            pool.submit { self.run(number, host, key, isCancelled: $0 == .cancelled) }
        }
        if isKnown {
            let impatience = eventLoop.scheduleTask(in: limits.patience) { self.useKnown(for: waiter, of: key) }
            promise.futureResult.whenComplete { _ in impatience.cancel() }
        }
        return promise.futureResult
    }

    /// Who waits has the state's latest number.
    private func enter(
        _ promise: EventLoopPromise<[QUICSocketAddress]>, for key: String, now: NIODeadline, _ state: inout State
    ) -> Turn {
        let waiter = state.numbers
        var running = state.lookups[key] ?? []
        if let last = running.indices.last,
            now - running[last].beganAt < limits.patience || state.count >= limits.threads
        {
            running[last].waiting[waiter] = promise
            state.lookups[key] = running
            return .joined
        }
        guard state.count < limits.threads + limits.queue else { return .refused }
        state.count += 1
        running.append(Lookup(number: waiter, beganAt: now, waiting: [waiter: promise]))
        state.lookups[key] = running
        return .begins(waiter)
    }

    /// On a thread of the pool.
    private func run(_ number: UInt64, _ host: String, _ key: String, isCancelled: Bool) {
        let result = Result { () throws -> [QUICSocketAddress] in
            guard !isCancelled else { throw CancellationError() }
            let found = try lookUp(host)
            guard !found.isEmpty else {
                throw QUICTransportError(
                    .resolveFailed, "\(host.printable) has no address", advice: "Check the name.")
            }
            return found
        }
        let waiting = state.withLock { state in
            state.count -= 1
            var running = state.lookups[key] ?? []
            var waiting: [EventLoopPromise<[QUICSocketAddress]>] = []
            if case .success(let found) = result {
                remember(found, of: key, &state)
                // Whichever lookup brings it: an answer is good for all.
                for index in running.indices {
                    waiting += running[index].waiting.values
                    running[index].waiting = [:]
                }
            } else {
                waiting += running.first { $0.number == number }.map { Array($0.waiting.values) } ?? []
            }
            running.removeAll { $0.number == number }
            state.lookups[key] = running.isEmpty ? nil : running
            return waiting
        }
        for promise in waiting { promise.completeWith(result) }
    }

    /// The lookup takes too long: one who waits for it goes on with the last good answer, if it isn't too old. The lookup itself
    /// goes on, for the next.
    private func useKnown(for waiter: UInt64, of key: String) {
        let (promise, addresses) = state.withLock {
            state -> (EventLoopPromise<[QUICSocketAddress]>?, [QUICSocketAddress]) in
            guard let known = state.known[key], NIODeadline.now() - known.at < limits.memory else { return (nil, []) }
            for index in state.lookups[key]?.indices ?? 0..<0 {
                if let promise = state.lookups[key]?[index].waiting.removeValue(forKey: waiter) {
                    return (promise, known.addresses)
                }
            }
            return (nil, [])
        }
        promise?.succeed(addresses)
    }

    // MARK: Remembering

    private func remember(_ addresses: [QUICSocketAddress], of key: String, _ state: inout State) {
        if state.known[key] == nil, state.known.count >= limits.names,
            let oldest = state.known.min(by: { $0.value.at < $1.value.at })?.key
        {
            state.known[oldest] = nil
        }
        state.known[key] = Known(addresses: addresses, at: .now(), preferred: state.known[key]?.preferred)
    }

    /// A server at this address of a host completed a handshake: the next attempts begin there, until the time is over; then the
    /// resolver's first gets its chance again.
    func answered(_ host: String, from address: SocketAddress) {
        guard let address = QUICSocketAddress(address)?.with(port: 0) else { return }
        let (key, now) = (host.lowercased(), NIODeadline.now())
        state.withLock { state in
            // Numeric hosts are not known.
            guard let known = state.known[key] else { return }
            if let preferred = known.preferred, preferred.address == address, now - preferred.since < limits.memory {
                return
            }
            state.known[key]?.preferred = (address, now)
        }
    }

    private func preferred(of host: String) -> QUICSocketAddress? {
        state.withLock { state in
            state.known[host.lowercased()]?.preferred.flatMap {
                NIODeadline.now() - $0.since < limits.memory ? $0.address : nil
            }
        }
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

    // MARK: The system

    /// What the system's resolver says, in its order.
    package static func askSystem(host: String) throws -> [QUICSocketAddress] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        hints.ai_protocol = Int32(IPPROTO_UDP)
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        guard status == 0 else {
            throw QUICTransportError(
                .resolveFailed, "\(host.printable) could not be resolved", cause: String(cString: gai_strerror(status)),
                advice: "Check the name and the resolver.")
        }
        var found: [QUICSocketAddress] = []
        var next = list
        while let entry = next {
            if let pointer = entry.pointee.ai_addr,
                let address = QUICSocketAddress(sockaddr: pointer, length: Int(entry.pointee.ai_addrlen))
            {
                found.append(address.with(port: 0))
            }
            next = entry.pointee.ai_next
        }
        return found
    }
}
