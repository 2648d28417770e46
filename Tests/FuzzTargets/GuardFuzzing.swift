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
            let contained = copy.withUnsafeMutableBufferPointer {
                llq_guard_inspect(&state, $0.baseAddress, count, 1)
            }
            guard state.count >= 1, state.count <= LLQ_GUARD_RANGES, state.stop_count <= LLQ_GUARD_STOPS else {
                throw FuzzFinding("the guard holds \(state.count) ranges and \(state.stop_count) stops")
            }
            guard (contained == 0) == (copy == packet) else {
                throw FuzzFinding("\(contained) frames were overwritten in \(packet), which became \(copy)")
            }
            // What was overwritten is harmless, and says the same the next time.
            let again = copy.withUnsafeMutableBufferPointer { llq_guard_inspect(&state, $0.baseAddress, count, 1) }
            guard contained == 0 || again == 0 || copy != packet else { throw FuzzFinding("\(packet) stays dangerous") }
        }
    }
}
