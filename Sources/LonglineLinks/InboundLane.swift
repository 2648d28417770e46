internal import LonglineSession
internal import LonglineWire
internal import NIOCore

/// The frames of one lane as they come in: less than one frame is held back.
struct InboundLane {
    let id: LaneID
    private var decoder = FrameDecoder()
    /// The bytes held back, or some of them, came before the handshake completed.
    private var heldIsEarly = false
    private var currentIsEarly = false
    /// Nothing more is read: the lane ended, or its bytes were no frames.
    private(set) var isOver = false

    init(id: LaneID) { self.id = id }

    /// Bytes of a frame whose end has not come, and of those behind the last one taken.
    var heldBytes: Int { decoder.heldBytes }

    mutating func append(_ bytes: ByteBuffer, early: Bool) {
        currentIsEarly = early
        decoder.append(bytes)
    }

    /// The next whole frame, and whether some of it was early data.
    mutating func next() throws(FrameError) -> (frame: Frame, early: Bool)? {
        guard !isOver else { return nil }
        do throws(FrameError) {
            if let frame = try decoder.next() {
                let early = currentIsEarly || heldIsEarly
                // What follows in the same read is as early as the read was.
                heldIsEarly = false
                return (frame, early)
            }
        } catch {
            isOver = true
            throw error
        }
        heldIsEarly = decoder.heldBytes > 0 && (heldIsEarly || currentIsEarly)
        return nil
    }

    /// The peer finished the lane.
    mutating func finish() throws(FrameError) {
        guard !isOver else { return }
        defer { abandon() }
        try decoder.finish()
    }

    /// The peer reset the lane, or this side reads no more of it.
    mutating func abandon() {
        isOver = true
        decoder = FrameDecoder()
    }
}
