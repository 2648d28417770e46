internal import NIOCore
internal import QUICEngine
internal import Synchronization

/// Datagrams on their way from the loop that received them to the loop that owns their connection.
struct HandedDatagrams: Sendable {
    /// All `segmentSize` long, but the last may be shorter.
    var bytes: ByteBuffer
    var segmentSize: Int
    var path: QUICPath
    var ecn: ECNCodepoint

    var count: Int { (bytes.readableBytes + segmentSize - 1) / segmentSize }
}

/// Where other loops put datagrams for one loop. Bounded: what doesn't fit is lost, and QUIC sends it again.
final class HandoverQueue: Sendable {
    enum Offer { case first, queued, full }

    /// Datagrams.
    private static let limit = 4096
    /// Of an honest peer's size the limit above comes first: a stranger's can have 64 KiB.
    private static let byteLimit = 8 << 20

    private struct State {
        var items: [HandedDatagrams] = []
        var datagrams = 0
        var bytes = 0
    }

    private let state = Mutex(State())
    let eventLoop: any EventLoop
    /// Where the owner waits for work; it lives as long as the endpoint.
    let wake: @Sendable () -> Void

    init(eventLoop: any EventLoop, wake: @escaping @Sendable () -> Void) {
        self.eventLoop = eventLoop
        self.wake = wake
    }

    /// - Returns: whether it was taken.
    func offer(_ item: HandedDatagrams) -> Bool {
        let offer: Offer = state.withLock { state in
            guard state.datagrams + item.count <= Self.limit,
                state.bytes + item.bytes.readableBytes <= Self.byteLimit
            else { return .full }
            state.items.append(item)
            state.datagrams += item.count
            state.bytes += item.bytes.readableBytes
            return state.items.count == 1 ? .first : .queued
        }
        if offer == .first { eventLoop.execute(wake) }
        return offer != .full
    }

    func take() -> [HandedDatagrams] {
        state.withLock { state in
            let taken = state.items
            state.items.removeAll(keepingCapacity: true)
            state.datagrams = 0
            state.bytes = 0
            return taken
        }
    }
}

/// The loops of one server by worker number. Set once, when every loop is up.
final class LoopRoutes: Sendable {
    private let queues: [HandoverQueue]
    private let workerOffset: Int

    /// - Parameter workerOffset: where the worker's byte is in a connection ID.
    init(_ queues: [HandoverQueue], workerOffset: Int) {
        self.queues = queues
        self.workerOffset = workerOffset
    }

    /// The queue of the loop that owns a datagram's connection, or nil if that is `worker` itself or nobody.
    func owner(of datagram: UnsafeRawBufferPointer, worker: Int) -> HandoverQueue? {
        guard queues.count > 1,
            let named = Self.workerID(of: datagram, at: workerOffset),
            Int(named) != worker, Int(named) < queues.count
        else { return nil }
        return queues[Int(named)]
    }

    /// Takes joined datagrams apart by the loops that own their connections: mostly all are one's.
    /// - Parameter body: gets the datagrams that follow on one another, and the queue of their owner; nil: it is `worker`
    ///   itself, or nobody.
    func forEachRun(
        in datagrams: UnsafeRawBufferPointer, segmentSize: Int, worker: Int,
        _ body: (UnsafeRawBufferPointer, HandoverQueue?) -> Void
    ) {
        var start = 0
        var current: HandoverQueue?
        var offset = 0
        while offset < datagrams.count {
            let end = min(offset + segmentSize, datagrams.count)
            let owner = owner(of: UnsafeRawBufferPointer(rebasing: datagrams[offset..<end]), worker: worker)
            if owner !== current {
                if offset > start { body(UnsafeRawBufferPointer(rebasing: datagrams[start..<offset]), current) }
                start = offset
                current = owner
            }
            offset = end
        }
        if datagrams.count > start { body(UnsafeRawBufferPointer(rebasing: datagrams[start...]), current) }
    }

    /// The plain worker byte of the connection ID that a datagram is for.
    ///
    /// Only packets whose destination ID this server chose are looked at: short headers and Handshake packets. An Initial
    /// or 0-RTT packet may carry an ID that the client drew; it stays on the loop that the kernel's hash chose, where
    /// the rest of its flight goes too.
    static func workerID(of datagram: UnsafeRawBufferPointer, at workerOffset: Int) -> UInt8? {
        // The fixed bit says nothing: peers may grease it (RFC 9287).
        guard let first = datagram.first else { return nil }
        let isLong = first & 0x80 != 0
        if isLong, !isHandshake(datagram) { return nil }
        let offset = (isLong ? 6 : 1) + workerOffset
        return offset < datagram.count ? datagram[offset] : nil
    }

    /// Whether it begins with a Handshake packet of a version that we know: their types differ (RFC 9000 section
    /// 17.2.4, RFC 9369 section 3.2).
    private static func isHandshake(_ datagram: UnsafeRawBufferPointer) -> Bool {
        guard datagram.count >= 5 else { return false }
        let version = UInt32(bigEndian: datagram.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
        switch version {
        case 1: return datagram[0] & 0x30 == 0x20
        case 0x6b33_43cf: return datagram[0] & 0x30 == 0x30
        default: return false
        }
    }
}
