import NIOCore
import NIOPosix
import Synchronization

/// Stands between clients and the server as a NAT on a mobile path would: every client address gets an outer port of its
/// own (on the same IP address, so that the server sees a client move), and each datagram takes its time.
///
/// It keeps what a client sent before the first answer came back: the first flight, which anybody on the path could
/// capture and send again.
final class DatagramRelay: Sendable {
    /// The largest first flight that is kept, in datagrams.
    private static let flightLimit = 64
    /// Clients that one demonstration may have; further ones are not served.
    private static let mappingLimit = 256

    private struct Mapping {
        let outer: any Channel
        var firstFlight: [ByteBuffer] = []
        var answered = false
    }

    private struct State {
        var mappings: [SocketAddress: EventLoopFuture<any Channel>] = [:]
        var flights: [SocketAddress: Mapping] = [:]
        var latest: SocketAddress?
    }

    private let inner: any Channel
    private let server: SocketAddress
    private let delay: TimeAmount
    private let state = Mutex(State())

    /// The round-trip time that the relay adds.
    let roundTrip: Duration

    private init(inner: any Channel, server: SocketAddress, roundTrip: Duration) {
        self.inner = inner
        self.server = server
        self.roundTrip = roundTrip
        delay = .nanoseconds(roundTrip.components.attoseconds / 2_000_000_000)
    }

    /// Opens a relay on a free loopback port.
    static func open(to server: SocketAddress, roundTrip: Duration, on group: any EventLoopGroup) async throws
        -> DatagramRelay
    {
        let inner = try await bootstrap(on: group.next()).bind(host: "127.0.0.1", port: 0).get()
        let relay = DatagramRelay(inner: inner, server: server, roundTrip: roundTrip)
        try await inner.pipeline.addHandler(Receiver { [weak relay] in relay?.fromClient($0) })
        return relay
    }

    private static func bootstrap(on loop: any EventLoop) -> DatagramBootstrap {
        DatagramBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelOption(.socketOption(.so_rcvbuf), value: 4 << 20)
    }

    var port: Int { inner.localAddress?.port ?? 0 }

    /// What the client that came last sent up to the server's first answer.
    var latestFirstFlight: [ByteBuffer] {
        state.withLock { state in state.latest.flatMap { state.flights[$0] }?.firstFlight ?? [] }
    }

    /// Sends datagrams to the server from a new port, as somebody who captured them would, and counts the answers that
    /// come within `patience`.
    func replay(_ flight: [ByteBuffer], patience: Duration) async throws -> Int {
        let counter = AnswerCounter()
        let attacker = try await Self.bootstrap(on: inner.eventLoop).bind(host: "127.0.0.1", port: 0).get()
        try await attacker.pipeline.addHandler(Receiver { _ in counter.add() })
        for datagram in flight {
            try await attacker.writeAndFlush(AddressedEnvelope(remoteAddress: server, data: datagram))
        }
        try await Task.sleep(for: patience)
        try await attacker.close()
        return counter.count
    }

    func close() async {
        try? await inner.close()
        for mapping in state.withLock({ Array($0.flights.values) }) { try? await mapping.outer.close() }
    }

    private func fromClient(_ envelope: AddressedEnvelope<ByteBuffer>) {
        let client = envelope.remoteAddress
        // All of this runs on one loop. A mapping's future may complete at once, so it is made outside the lock.
        let (known, isFull) = state.withLock { ($0.mappings[client], $0.mappings.count >= Self.mappingLimit) }
        guard known != nil || !isFull else { return }
        let mapping = known ?? openMapping(for: client)
        if known == nil { state.withLock { $0.mappings[client] = mapping } }
        mapping.whenSuccess { outer in
            self.state.withLock { state in
                if let mapping = state.flights[client], !mapping.answered, mapping.firstFlight.count < Self.flightLimit
                {
                    state.flights[client]?.firstFlight.append(envelope.data)
                }
            }
            self.afterDelay(outer, AddressedEnvelope(remoteAddress: self.server, data: envelope.data))
        }
    }

    private func openMapping(for client: SocketAddress) -> EventLoopFuture<any Channel> {
        Self.bootstrap(on: inner.eventLoop).bind(host: client.ipAddress ?? "127.0.0.1", port: 0).flatMap { outer in
            self.state.withLock { state in
                state.flights[client] = Mapping(outer: outer)
                state.latest = client
            }
            let receiver = Receiver { [weak self] envelope in
                guard let self else { return }
                self.state.withLock { $0.flights[client]?.answered = true }
                self.afterDelay(self.inner, AddressedEnvelope(remoteAddress: client, data: envelope.data))
            }
            return outer.pipeline.addHandler(receiver).map { outer }
        }
    }

    private func afterDelay(_ channel: any Channel, _ envelope: AddressedEnvelope<ByteBuffer>) {
        channel.eventLoop.scheduleTask(in: delay) { channel.writeAndFlush(envelope, promise: nil) }
    }
}

/// Counts across threads.
private final class AnswerCounter: Sendable {
    private let value = Mutex(0)
    var count: Int { value.withLock { $0 } }
    func add() { value.withLock { $0 += 1 } }
}

/// Hands each datagram on.
private final class Receiver: ChannelInboundHandler, Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let receive: @Sendable (AddressedEnvelope<ByteBuffer>) -> Void

    init(_ receive: @escaping @Sendable (AddressedEnvelope<ByteBuffer>) -> Void) { self.receive = receive }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { receive(unwrapInboundIn(data)) }
}
