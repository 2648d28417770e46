import CQUICShim
import Testing

/// The guard alone: what it withholds from ngtcp2 0.12, and what it leaves.
@Suite struct FrameGuardTests {
    private final class Guard {
        private var state = llq_frame_guard()

        init() { llq_guard_init(&state) }

        var ranges: Int { Int(state.count) }
        var isProbing: Bool { state.is_probing != 0 }
        var challenges: Int { Int(state.challenge_count) }
        var responses: Int { Int(state.response_count) }
        var firstResponse: [UInt8] { withUnsafeBytes(of: state.responses.0) { Array($0) } }

        func know(_ sequence: UInt64) { llq_guard_know(&state, sequence) }

        /// What becomes of a packet.
        func inspect(_ packet: [UInt8]) -> [UInt8] {
            var bytes = packet
            _ = bytes.withUnsafeMutableBufferPointer {
                var nobody = llq_guard_listener()
                return llq_guard_inspect(&state, $0.baseAddress, $0.count, 1, &nobody)
            }
            return bytes
        }

        /// What is told of a packet's frames.
        func told(of packet: [UInt8]) -> Told {
            var bytes = packet
            let told = Told()
            _ = bytes.withUnsafeMutableBufferPointer {
                var listener = llq_guard_listener(
                    stop: { context, stream, code in
                        guard let context else { return }
                        Unmanaged<Told>.fromOpaque(context).takeUnretainedValue().stops.append([stream, code])
                    },
                    acknowledged: { context, first, last in
                        guard let context else { return }
                        Unmanaged<Told>.fromOpaque(context).takeUnretainedValue().acknowledged.append(first...last)
                    }, context: Unmanaged.passUnretained(told).toOpaque())
                return llq_guard_inspect(&state, $0.baseAddress, $0.count, 1, &listener)
            }
            return told
        }

        final class Told {
            var stops: [[UInt64]] = []
            var acknowledged: [ClosedRange<UInt64>] = []
        }
    }

    private func newConnectionID(_ sequence: UInt16, retirePriorTo: UInt16) -> [UInt8] {
        func number(_ value: UInt16) -> [UInt8] { [0x40 | UInt8(value >> 8), UInt8(value & 0xff)] }
        return [0x18] + number(sequence) + number(retirePriorTo) + [4, 1, 2, 3, 4] + [UInt8](repeating: 0xee, count: 16)
    }

    private func isContained(_ packet: [UInt8], by frameGuard: Guard) -> Bool { frameGuard.inspect(packet) != packet }

    @Test("a known number below the threshold is withheld, others are not")
    func aKnownNumberBelowTheThresholdIsWithheld() {
        let frameGuard = Guard()
        #expect(!isContained(newConnectionID(20, retirePriorTo: 20), by: frameGuard))
        #expect(isContained(newConnectionID(0, retirePriorTo: 0), by: frameGuard), "known from the handshake")
        #expect(!isContained(newConnectionID(12, retirePriorTo: 0), by: frameGuard), "seen for the first time")
        #expect(isContained(newConnectionID(12, retirePriorTo: 0), by: frameGuard))
        #expect(!isContained(newConnectionID(20, retirePriorTo: 20), by: frameGuard), "not below the threshold")
        #expect(!isContained(newConnectionID(21, retirePriorTo: 0), by: frameGuard))
        #expect(!isContained(newConnectionID(1, retirePriorTo: 0), by: frameGuard))
    }

    @Test("the number of a preferred address counts as known") func theNumberOfAPreferredAddressCountsAsKnown() {
        let frameGuard = Guard()
        frameGuard.know(1)
        #expect(!isContained(newConnectionID(2, retirePriorTo: 2), by: frameGuard))
        #expect(isContained(newConnectionID(1, retirePriorTo: 0), by: frameGuard))
    }

    @Test("a packet whose frame is withheld still asks for an acknowledgement")
    func aPacketWhoseFrameIsWithheldStillAsksForAnAcknowledgement() {
        let frameGuard = Guard()
        _ = frameGuard.inspect(newConnectionID(5, retirePriorTo: 5))
        let frame = newConnectionID(0, retirePriorTo: 0)
        let before: [UInt8] = [0x02, 3, 0, 0, 1]
        let after: [UInt8] = [0x10, 0x44, 0x00]
        let inspected = frameGuard.inspect(before + frame + after)
        #expect(inspected == before + [0x01] + [UInt8](repeating: 0, count: frame.count - 1) + after)
    }

    @Test("the frame is found behind every other kind of frame")
    func theFrameIsFoundBehindEveryOtherKindOfFrame() {
        let others: [[UInt8]] = [
            [0x00], [0x01], [0x02, 9, 0, 1, 1, 2, 3], [0x03, 9, 0, 0, 1, 1, 2, 3], [0x04, 0, 1, 2], [0x05, 0, 1],
            [0x06, 0, 2, 1, 2], [0x07, 2, 1, 2], [0x0a, 0, 2, 1, 2], [0x0b, 0, 0], [0x0e, 0, 1, 2, 1, 2],
            [0x0f, 0, 1, 1, 9], [0x10, 1], [0x11, 0, 1], [0x12, 1], [0x13, 1], [0x14, 1], [0x15, 0, 1], [0x16, 1],
            [0x17, 1], [0x19, 1], [0x1a, 1, 2, 3, 4, 5, 6, 7, 8], [0x1b, 1, 2, 3, 4, 5, 6, 7, 8],
            [0x1c, 1, 6, 2, 1, 2], [0x1d, 1, 2, 1, 2], [0x1e], [0x31, 2, 1, 2],
        ]
        for other in others {
            let frameGuard = Guard()
            _ = frameGuard.inspect(newConnectionID(5, retirePriorTo: 5))
            #expect(isContained(other + newConnectionID(0, retirePriorTo: 0), by: frameGuard), "\(other)")
        }
        // These end the packet.
        for last in [[0x08, 0], [0x09, 0], [0x0c, 0, 1], [0x0d, 0, 1], [0x30]] as [[UInt8]] {
            let frameGuard = Guard()
            _ = frameGuard.inspect(newConnectionID(5, retirePriorTo: 5))
            #expect(!isContained(last + newConnectionID(0, retirePriorTo: 0), by: frameGuard), "\(last)")
        }
    }

    @Test(
        "where it can't go on, ngtcp2 can't either",
        arguments: [
            // Types that ngtcp2 takes for STREAM, with an empty stream frame behind them.
            [0x1f, 0, 0, 0], [0x2a, 0, 0], [0x38, 0], [0x4a, 0, 0], [0x8b, 0, 0], [0xcf, 0, 0, 0], [0x21],
            [0x40, 0x21],
            // Known types in more bytes than they need.
            [0x40, 0x01], [0x40, 0x18],
            // An ACK frame whose 33rd range is below zero, which ngtcp2 skips.
            [0x02, 0x40, 200, 0, 33, 0] + [UInt8](repeating: 0, count: 64) + [0x7f, 0xff, 0],
        ] as [[UInt8]])
    func whereItCantGoOn(frame: [UInt8]) {
        let frameGuard = Guard()
        _ = frameGuard.inspect(newConnectionID(5, retirePriorTo: 5))
        let behind = newConnectionID(0, retirePriorTo: 0)
        #expect(frameGuard.inspect([0x01] + frame + behind) == [0x01, 0x20] + frame.dropFirst() + behind)
    }

    @Test("STREAM without data takes the place of STREAM_DATA_BLOCKED, with the same stream")
    func blockedStreams() {
        let frameGuard = Guard()
        let frames: [UInt8] = [0x01, 0x15, 4, 0x44, 0x00, 0x15, 0x40, 7, 9, 0x10, 1]
        let expected: [UInt8] = [0x01, 0x0a, 4, 0, 0, 0x0a, 0x40, 7, 0, 0x10, 1]
        #expect(frameGuard.inspect(frames) == expected)
        #expect(frameGuard.inspect(expected) == expected)
        #expect(frameGuard.inspect([0x15, 4]) == [0x20, 4], "truncated")
    }

    @Test("a packet that comes twice does no harm") func aPacketThatComesTwiceDoesNoHarm() {
        let frameGuard = Guard()
        for sequence in 1...6 as ClosedRange<UInt16> {
            let packet = newConnectionID(sequence, retirePriorTo: 0)
            #expect(!isContained(packet, by: frameGuard))
            #expect(!isContained(packet, by: frameGuard))
        }
    }

    @Test("it tells what a packet says of paths") func itTellsWhatAPacketSaysOfPaths() {
        let frameGuard = Guard()
        let challenge = [0x1a] + (1...8).map(UInt8.init), response = [0x1b] + (11...18).map(UInt8.init)
        let padding = [UInt8](repeating: 0, count: 9)
        _ = frameGuard.inspect(challenge + response + newConnectionID(9, retirePriorTo: 0) + padding)
        #expect(frameGuard.isProbing && frameGuard.challenges == 1 && frameGuard.responses == 1)
        #expect(frameGuard.firstResponse == (11...18).map(UInt8.init))
        _ = frameGuard.inspect(challenge + [0x01] + padding)
        #expect(!frameGuard.isProbing && frameGuard.challenges == 1 && frameGuard.responses == 0)
        _ = frameGuard.inspect((0..<40).flatMap { _ in response })
        #expect(frameGuard.isProbing && frameGuard.responses == Int(LLQ_GUARD_RESPONSES))
        _ = frameGuard.inspect(Array(response.dropLast()))
        #expect(frameGuard.responses == 0, "truncated")
    }

    @Test("what it remembers is bounded") func whatItRemembersIsBounded() {
        let frameGuard = Guard()
        for sequence in stride(from: UInt16(2), to: 8000, by: 2) {
            _ = frameGuard.inspect(newConnectionID(sequence, retirePriorTo: 0))
            #expect(frameGuard.ranges <= Int(LLQ_GUARD_RANGES))
        }
        _ = frameGuard.inspect(newConnectionID(8000, retirePriorTo: 8000))
        // The lowest gaps are forgotten in favour of safety.
        for sequence in stride(from: UInt16(0), to: 8000, by: 2) {
            #expect(isContained(newConnectionID(sequence, retirePriorTo: 0), by: frameGuard), "\(sequence)")
        }
    }

    @Test("every STOP_SENDING of a packet is told, those before a malformed frame, too")
    func everyStopIsTold() {
        let stops = (0..<63 as Range<UInt8>).flatMap { [0x05, $0, 63 - $0] as [UInt8] }
        let expected = (0..<63).map { [UInt64($0), UInt64(63 - $0)] }
        #expect(Guard().told(of: stops).stops == expected)
        #expect(Guard().told(of: stops + [0x05, 0x40]).stops == expected)
        #expect(Guard().told(of: [0x05]).stops.isEmpty)
    }

    @Test("what an ACK frame acknowledges is told, range by range")
    func whatIsAcknowledgedIsTold() {
        // Largest 100, no delay, three ranges behind the first: 98...100, 95...95, 90...93, 0...0.
        let ack: [UInt8] = [0x02, 0x40, 100, 0, 3, 2, 1, 0, 0, 3, 0x40, 88, 0]
        #expect(Guard().told(of: ack).acknowledged == [98...100, 95...95, 90...93, 0...0])
        // With ECN counts, between other frames.
        let counted: [UInt8] = [0x01, 0x03, 7, 0, 0, 7, 1, 2, 3, 0x02, 9, 0, 0, 0]
        #expect(Guard().told(of: counted).acknowledged == [0...7, 9...9])
        // Below zero.
        #expect(Guard().told(of: [0x02, 5, 0, 0, 6]).acknowledged.isEmpty)
        #expect(Guard().told(of: [0x02, 5, 0, 1, 0, 4, 0]).acknowledged == [5...5])
        #expect(Guard().told(of: [0x02, 5, 0, 1, 0, 3, 1]).acknowledged == [5...5])
    }

    @Test("of an ACK frame as many ranges are told as ngtcp2 takes")
    func asManyRangesAreTold() {
        let ranges = [UInt8](repeating: 0, count: 2 * 100)
        let ack: [UInt8] = [0x02, 0x43, 0xe8, 0, 0x40, 100, 0] + ranges + [0x05, 4, 7]
        let told = Guard().told(of: ack)
        let expected: [ClosedRange<UInt64>] = (0...32).map { (number: UInt64) -> ClosedRange<UInt64> in
            let packet: UInt64 = 1000 - 2 * number
            return packet...packet
        }
        #expect(told.acknowledged == expected)
        // And it is read to its end.
        #expect(told.stops == [[4, 7]])
    }
}
