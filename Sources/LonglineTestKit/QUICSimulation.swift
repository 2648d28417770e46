public import QUICEngine

/// QUIC endpoints on a simulated network: everything happens in one thread and in virtual time.
public final class QUICSimulation {
    /// An endpoint at its addresses.
    public final class Host {
        /// The endpoint.
        public let endpoint: QUICEndpoint
        /// Called for each event; act through the connection.
        public var onEvent: ((QUICEngineConnection, QUICConnectionEvent) -> Void)?
        /// Whether it is switched off: it neither sends nor receives nor keeps time.
        public var isDown = false
        /// Whether its events are taken. Until they are they wait, as behind handlers that are busy.
        public var takesEvents = true

        init(endpoint: QUICEndpoint) { self.endpoint = endpoint }
    }

    /// The network and its clock.
    public let network: SimulatedNetwork
    private var hosts: [(addresses: Set<QUICSocketAddress>, host: Host)] = []
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

    /// A simulation on a network.
    public init(network: SimulatedNetwork) { self.network = network }

    deinit { buffer.deallocate() }

    /// Adds an endpoint that receives at these addresses.
    public func add(_ endpoint: QUICEndpoint, at addresses: Set<QUICSocketAddress>) -> Host {
        let host = Host(endpoint: endpoint)
        hosts.append((addresses, host))
        return host
    }

    /// Takes an endpoint away, for instance to put another in its place.
    public func remove(_ host: Host) { hosts.removeAll { $0.host === host } }

    /// Lets everything run until a condition holds.
    /// - Parameter limit: virtual time it may take at most.
    /// - Returns: whether the condition came to hold.
    @discardableResult
    public func run(for limit: QUICDuration, until condition: () -> Bool = { false }) -> Bool {
        let end = network.now.advanced(byNanoseconds: limit.nanoseconds)
        settle()
        while !condition() {
            let next = ([network.nextDelivery] + hosts.map { $0.host.isDown ? nil : $0.host.endpoint.nextDeadline })
                .compactMap { $0 }.min()
            guard let next, next <= end else {
                network.advance(to: end)
                return condition()
            }
            network.advance(to: next)
            while let delivery = network.receive() {
                guard let host = hosts.first(where: { $0.addresses.contains(delivery.path.local) })?.host,
                    !host.isDown
                else { continue }
                delivery.bytes.withUnsafeBytes {
                    host.endpoint.receive($0, path: delivery.path, ecn: delivery.ecn, now: network.now)
                }
            }
            for (_, host) in hosts where !host.isDown { host.endpoint.handleDeadline(now: network.now) }
            settle()
        }
        return true
    }

    /// Delivers events and sends what is ready, without letting time pass.
    public func settle() {
        var isBusy = true
        while isBusy {
            isBusy = false
            for (_, host) in hosts where !host.isDown {
                while host.takesEvents, let (connection, event) = host.endpoint.pollEvent() {
                    isBusy = true
                    host.onEvent?(connection, event)
                }
                while let run = host.endpoint.pollTransmit(into: buffer, now: network.now) {
                    isBusy = true
                    var offset = 0
                    while offset < run.length {
                        let end = min(offset + run.segmentSize, run.length)
                        network.send(Array(buffer[offset..<end]), on: run.path, ecn: run.ecn)
                        offset = end
                    }
                }
            }
        }
    }
}
