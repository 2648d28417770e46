import BenchmarkHarness
import NIOCore

/// What was delivered, and how long it took: a message carries its number and the time at which it was due.
///
/// Confined to the members' loop.
final class Tally {
    /// A short chat message.
    static let payloadSize = 128
    private let origin = ContinuousClock.now
    private let size: Int
    /// To how many members each message is under way.
    private var missing: [UInt64: Int] = [:]
    private var lastNumber: UInt64 = 0
    private(set) var deliveries = 0
    private var times: Latencies?
    /// Called when somebody has got a message last.
    var whenEverybodyHasOne: () -> Void = {}

    init(size: Int) { self.size = size }

    /// Messages that somebody still waits for.
    var underWay: Int { missing.count }

    func startTiming() { times = Latencies() }

    func stopTiming() -> Latencies {
        defer { times = nil }
        return times ?? Latencies()
    }

    /// A new message that is due at `due`.
    func payload(due: ContinuousClock.Instant) -> ByteBuffer {
        lastNumber += 1
        missing[lastNumber] = size
        var payload = ByteBuffer()
        payload.writeMultipleIntegers(lastNumber, UInt64(max(0, (due - origin).inSeconds) * 1e9))
        payload.writeRepeatingByte(0x61, count: Self.payloadSize - payload.readableBytes)
        return payload
    }

    func delivered(_ payload: ByteBuffer) {
        var payload = payload
        guard let (number, due) = payload.readMultipleIntegers(as: (UInt64, UInt64).self), let left = missing[number]
        else {
            preconditionFailure("a message that nobody sent, or that came too often")
        }
        deliveries += 1
        times?.record(ContinuousClock.now - origin - .nanoseconds(Int64(due)))
        missing[number] = left > 1 ? left - 1 : nil
        if left == 1 { whenEverybodyHasOne() }
    }
}
