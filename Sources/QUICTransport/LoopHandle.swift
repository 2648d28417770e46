internal import Logging
internal import Metrics
internal import NIOCore
internal import QUICEngine

/// A loop's driver as other threads see it: every call hops to the loop.
struct LoopHandle: Sendable {
    let eventLoop: any EventLoop
    private let driver: NIOLoopBound<LoopDriver>

    /// On the loop only.
    var value: LoopDriver { driver.value }

    static func make(
        on eventLoop: any EventLoop, configuration: EndpointConfiguration, sockets: QUICSocketOptions,
        logger: Logger, metrics: (any MetricsFactory)?,
        accept: (@Sendable (QUICLoopConnection) -> any QUICConnectionHandler)?
    ) async throws -> LoopHandle {
        try await eventLoop.submit {
            try LoopHandle(
                driver: LoopDriver(
                    eventLoop: eventLoop, configuration: configuration, socketOptions: sockets, logger: logger,
                    metrics: metrics, accept: accept))
        }.get()
    }

    /// On the loop only.
    init(driver: LoopDriver) {
        eventLoop = driver.eventLoop
        self.driver = NIOLoopBound(driver, eventLoop: driver.eventLoop)
    }

    /// Lets loops hand datagrams to each other.
    static func connect(_ loops: [LoopHandle], workerOffset: Int) async {
        guard loops.count > 1 else { return }
        var queues: [HandoverQueue] = []
        for loop in loops { queues.append(await loop.run { $0.handover }) }
        let routes = LoopRoutes(queues, workerOffset: workerOffset)
        for loop in loops { await loop.run { $0.routes = routes } }
    }

    /// - Parameters:
    ///   - group: the loops that share the address; nil: this loop has it alone.
    ///   - first: whether nobody else may have it yet, in this process or another.
    /// - Returns: the address, with the port that the system chose.
    func bind(to address: SocketAddress, group: SteeringGroup?, first: Bool) async throws -> SocketAddress {
        try await eventLoop.flatSubmit { () -> EventLoopFuture<SocketAddress> in
            let driver = self.driver.value
            let port = driver.makePort(group: group)
            return port.bind(to: address, isFirst: first).assumeIsolated().flatMapThrowing {
                guard driver.add(port) else {
                    port.close()
                    throw QUICTransportError(
                        .bindFailed, "\(address) is bound twice", advice: "Name each address once.")
                }
                return SocketAddress(port.identity)
            }.nonisolated()
        }.get()
    }

    func counters() async -> QUICTransportCounters { await run { $0.counters } }

    func stopAccepting() async { await run { $0.engine.acceptsConnections = false } }

    /// Closes the port that is bound to an address, if there is one.
    func closePort(at address: SocketAddress) async {
        await run { driver in if let own = QUICSocketAddress(address) { driver.removePort(at: own) } }
    }

    func closePorts() async { await run { $0.closePorts() } }

    func breakSockets() async { await run { $0.breakSockets() } }

    /// Waits until no connection is left, but not longer than `grace`.
    func waitForConnections(grace: TimeAmount) async {
        guard grace > .zero else { return }
        let done = eventLoop.flatSubmit { () -> EventLoopFuture<Void> in
            let promise = eventLoop.makePromise(of: Void.self)
            let limit = eventLoop.scheduleTask(in: grace) { promise.succeed(()) }
            self.driver.value.whenDrained().whenComplete { _ in
                limit.cancel()
                promise.succeed(())
            }
            return promise.futureResult
        }
        try? await done.get()
    }

    /// Closes all connections and waits until their last packets have left.
    func drain(code: UInt64, reason: String, timeout: TimeAmount) async {
        let done = eventLoop.flatSubmit { () -> EventLoopFuture<Void> in
            let driver = self.driver.value
            let promise = eventLoop.makePromise(of: Void.self)
            let limit = eventLoop.scheduleTask(in: timeout) { promise.succeed(()) }
            driver.closeAll(code: code, reason: reason)
            driver.whenSilent().whenComplete { _ in
                // The closes have left; a moment more lets them be repeated for peers that lost theirs and still send.
                eventLoop.scheduleTask(in: min(timeout, .milliseconds(100))) {
                    limit.cancel()
                    promise.succeed(())
                }
            }
            return promise.futureResult
        }
        try? await done.get()
    }

    /// Runs on the loop. A loop that was shut down is a programming error: groups outlive endpoints.
    private func run<Result: Sendable>(_ body: @escaping @Sendable (LoopDriver) -> Result) async -> Result {
        let future = eventLoop.submit { body(self.driver.value) }
        do {
            return try await future.get()
        } catch {
            preconditionFailure("the event loop was shut down before its QUIC endpoint: \(error)")
        }
    }
}
