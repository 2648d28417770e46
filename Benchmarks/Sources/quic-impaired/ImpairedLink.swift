import QUICEngine

/// Numbers that a seed repeats (SplitMix64).
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// One direction of a link: a rate, a delay, a queue that drops what has no room, and random loss. Time is virtual.
struct ImpairedDirection {
    struct Packet {
        var arrival: QUICInstant
        var bytes: [UInt8]
        var path: QUICPath
        var ecn: ECNCodepoint
    }

    private let nanosecondsPerByte: Double
    private let delay: UInt64
    /// Bytes that wait for the line are worth this long at most.
    private let longestQueue: UInt64
    private let loss: Double
    private var random: SeededNumbers
    private var lineIsFree: UInt64 = 0
    private var packets: [Packet] = []
    private var first = 0

    init(megabitsPerSecond: Double, delay: QUICDuration, queue: QUICDuration, loss: Double, seed: UInt64) {
        nanosecondsPerByte = 8000 / megabitsPerSecond
        self.delay = delay.nanoseconds
        longestQueue = queue.nanoseconds
        self.loss = loss
        random = SeededNumbers(seed: seed)
    }

    var nextArrival: QUICInstant? { first < packets.count ? packets[first].arrival : nil }

    mutating func send(_ bytes: UnsafeRawBufferPointer, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant) {
        let begin = max(lineIsFree, now.nanoseconds)
        guard begin - now.nanoseconds <= longestQueue else { return }
        lineIsFree = begin + UInt64(Double(bytes.count) * nanosecondsPerByte)
        guard Double.random(in: 0..<1, using: &random) >= loss else { return }
        packets.append(
            Packet(
                arrival: QUICInstant(nanoseconds: lineIsFree + delay), bytes: Array(bytes),
                path: QUICPath(local: path.remote, remote: path.local), ecn: ecn))
    }

    /// The next packet that has arrived.
    mutating func receive(now: QUICInstant) -> Packet? {
        guard first < packets.count, packets[first].arrival <= now else { return nil }
        defer {
            first += 1
            if first > 4096 {
                packets.removeFirst(first)
                first = 0
            }
        }
        return packets[first]
    }
}
