import BenchmarkHarness
import NIOCore
import Synchronization

/// What was acknowledged and delivered, and how long it took: a message carries the time at which it was due.
final class Tally: Sendable {
    private struct State {
        var count = 0
        var last = ContinuousClock.now
        var isTiming = false
        var acknowledged = Latencies()
        var delivered = Latencies()
    }

    /// A short chat message.
    static let payloadSize = 128
    private let origin = ContinuousClock.now
    private let state = Mutex(State())

    /// The payload of a message that is due at `due`.
    func payload(due: ContinuousClock.Instant) -> ByteBuffer {
        var payload = ByteBuffer(integer: UInt64((due - origin).inSeconds * 1e9))
        payload.writeRepeatingByte(0x61, count: Self.payloadSize - payload.readableBytes)
        return payload
    }

    func acknowledged(due: ContinuousClock.Instant) {
        let now = ContinuousClock.now
        state.withLock { if $0.isTiming { $0.acknowledged.record(now - due) } }
    }

    func delivered(_ payload: ByteBuffer) {
        let now = ContinuousClock.now
        let due = payload.getInteger(at: payload.readerIndex, as: UInt64.self) ?? 0
        state.withLock { state in
            state.count += 1
            state.last = now
            if state.isTiming { state.delivered.record(now - origin - .nanoseconds(Int64(due))) }
        }
    }

    /// How many were delivered so far, and when the last one was.
    var deliveries: (count: Int, last: ContinuousClock.Instant) { state.withLock { ($0.count, $0.last) } }

    /// Waits until as many were delivered, and tells when the last one was.
    func waitForDeliveries(_ count: Int) async throws -> ContinuousClock.Instant {
        for _ in 0..<30_000 {
            let (delivered, last) = deliveries
            precondition(delivered <= count, "a message was delivered twice")
            if delivered == count { return last }
            try await Task.sleep(for: .milliseconds(1))
        }
        preconditionFailure("\(count - deliveries.count) messages were not delivered within 30 s")
    }

    func startTiming() { state.withLock { $0.isTiming = true } }

    func stopTiming() { state.withLock { $0.isTiming = false } }

    /// All that was noted while it was timing.
    var times: (acknowledged: Latencies, delivered: Latencies) { state.withLock { ($0.acknowledged, $0.delivered) } }
}
