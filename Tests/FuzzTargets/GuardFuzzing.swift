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
            var told = Told()
            let contained = inspect(&copy, &state, &told)
            guard state.count >= 1, state.count <= LLQ_GUARD_RANGES else {
                throw FuzzFinding("the guard holds \(state.count) ranges")
            }
            // A type, a stream and a code have a byte each.
            guard told.stops <= count / 3 else { throw FuzzFinding("\(told.stops) stops in \(count) bytes") }
            // And two bytes a range, at the least.
            guard told.ranges <= count / 2, !told.isUpsideDown else {
                throw FuzzFinding("\(told.ranges) ranges in \(packet)")
            }
            let changed = zip(copy, packet).filter { $0 != $1 }.count
            // Only the type of a frame that nobody knows, and STREAM_DATA_BLOCKED, change where none is overwritten.
            guard contained == 0 ? changed <= 1 || packet.contains(0x15) : changed > 0 else {
                throw FuzzFinding("\(contained) frames were overwritten in \(packet), which became \(copy)")
            }
            // What was overwritten is harmless, and says the same the next time.
            let again = inspect(&copy, &state, &told)
            guard contained == 0 || again == 0 || copy != packet else { throw FuzzFinding("\(packet) stays dangerous") }
        }
    }
}

private struct Told {
    var stops = 0
    var ranges = 0
    var isUpsideDown = false
}

private func inspect(_ packet: inout [UInt8], _ state: inout llq_frame_guard, _ told: inout Told) -> Int {
    withUnsafeMutablePointer(to: &told) { told in
        var listener = llq_guard_listener(
            stop: { context, _, _ in context?.assumingMemoryBound(to: Told.self).pointee.stops += 1 },
            acknowledged: { context, first, last in
                guard let told = context?.assumingMemoryBound(to: Told.self) else { return }
                told.pointee.ranges += 1
                if first > last { told.pointee.isUpsideDown = true }
            }, context: told)
        return packet.withUnsafeMutableBufferPointer {
            llq_guard_inspect(&state, $0.baseAddress, $0.count, 1, &listener)
        }
    }
}
