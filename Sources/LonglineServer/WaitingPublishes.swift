import LonglineStore
import LonglineWire
import NIOCore

/// Publishes that wait ahead of the append queue, counted: those of a session, or those of an event loop.
///
/// A channel's window bounds what of a client waits by the channel, and a client may name hundreds of them.
struct WaitingPublishes {
    private(set) var count = 0
    private(set) var bytes = 0

    /// Bytes counted for everything but the payload.
    static let overhead = 512

    static func cost(_ request: AppendRequest) -> Int { request.publish.payload.readableBytes + overhead }

    mutating func add(_ request: AppendRequest) {
        count += 1
        bytes += Self.cost(request)
    }

    mutating func remove(_ request: AppendRequest) {
        count -= 1
        bytes -= Self.cost(request)
        assert(count >= 0 && bytes >= 0)
    }

    /// All of a session that ends.
    mutating func remove(all others: WaitingPublishes) {
        count -= others.count
        bytes -= others.bytes
        assert(count >= 0 && bytes >= 0)
    }
}

extension SessionHost {
    /// Whether a publish may wait together with what waits of this session and of the loop. The first of a session always fits the
    /// session, whatever its size.
    func hasRoom(
        for request: AppendRequest, beside own: WaitingPublishes, _ all: WaitingPublishes
    ) -> Bool {
        let cost = WaitingPublishes.cost(request)
        return (own.count == 0 || own.bytes + cost <= core.limits.waitingBytesPerSession)
            && all.bytes + cost <= core.limits.waitingBytesPerLoop
    }

    /// Refuses a publish for now, as there is no room for it.
    func refuseWithoutRoom(_ request: AppendRequest) {
        loop.statistics.publishesWithoutRoom += 1
        refuse(request, .overloaded)
    }
}

extension AppendRequest {
    /// With a payload that keeps nothing else in memory: it came with other bytes of its lane, as many as were read at once.
    var inOwnStorage: AppendRequest {
        let payload = publish.payload
        guard payload.storageCapacity > 2 * payload.readableBytes + WaitingPublishes.overhead else { return self }
        var request = self
        request.publish.payload = ByteBuffer()
        request.publish.payload.writeImmutableBuffer(payload)
        return request
    }
}
