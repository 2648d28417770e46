import CQUICShim

/// The frame guard sees plaintexts of peers that hold the keys.
enum GuardFuzzing {
    static func run(_ input: FuzzInput) throws {
        var input = input
        var state = llq_frame_guard()
        llq_guard_init(&state)
        while !input.isEmpty {
            let packet = input.bytes(input.number() % 1500)
            var copy = packet
            let count = copy.count
            var stops = 0
            let contained = copy.withUnsafeMutableBufferPointer {
                llq_guard_inspect(&state, $0.baseAddress, count, 1, countStop, &stops)
            }
            guard state.count >= 1, state.count <= LLQ_GUARD_RANGES else {
                throw FuzzFinding("the guard holds \(state.count) ranges")
            }
            // A type, a stream and a code have a byte each.
            guard stops <= count / 3 else { throw FuzzFinding("\(stops) stops in \(count) bytes") }
            guard (contained == 0) == (copy == packet) else {
                throw FuzzFinding("\(contained) frames were overwritten in \(packet), which became \(copy)")
            }
            // What was overwritten is harmless, and says the same the next time.
            let again = copy.withUnsafeMutableBufferPointer {
                llq_guard_inspect(&state, $0.baseAddress, count, 1, countStop, &stops)
            }
            guard contained == 0 || again == 0 || copy != packet else { throw FuzzFinding("\(packet) stays dangerous") }
        }
    }
}

private func countStop(_ context: UnsafeMutableRawPointer?, _ stream: UInt64, _ code: UInt64) {
    context?.assumingMemoryBound(to: Int.self).pointee += 1
}
