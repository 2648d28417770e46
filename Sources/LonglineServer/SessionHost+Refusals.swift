import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Publishes that are refused for good, unless they were entered before: only the ledger knows.
///
/// ```
///   unsettled --established, and something to refuse--> settling --all loops' publishes answered--> settled
/// ```
/// What an older link of the device had under way to the store counts as well, or a message would be told to be refused and
/// be entered a moment later. Once this link is the device's session the older one publishes nothing more, so it is enough to
/// wait once. Bounded by ``ServerLimits/appendsPerSession``.
struct PendingRefusals {
    enum State { case unsettled, settling, settled }

    fileprivate(set) var state = State.unsettled
    fileprivate(set) var waiting: [AppendRequest] = []

    mutating func removeAll() { waiting = [] }
}

extension SessionHost {
    /// Has the ledger answer a publish, and refuses it with this code where that does not know it.
    func refuseUnlessEntered(_ request: AppendRequest, _ code: RefusalCode) {
        var request = request
        request.refusal = code
        // The ledger looks at the ID and the tag.
        request.publish.payload = ByteBuffer()
        if refusals.state == .settled { return enqueue(request) }
        guard refusals.waiting.count < core.limits.appendsPerSession else { return refuseWithoutRoom(request) }
        refusals.waiting.append(request)
        settleRefusals()
    }

    /// Waits for older links' publishes, once this is the device's session.
    func settleRefusals() {
        guard phase == .established, refusals.state == .unsettled, !refusals.waiting.isEmpty else { return }
        refusals.state = .settling
        let loops = loop.loops
        offLoop {
            for loop in loops { await loop.appendsAnswered() }
        } then: { host, _ in
            guard host.phase != .ended else { return }
            host.refusals.state = .settled
            let waiting = host.refusals.waiting
            host.refusals.waiting = []
            for request in waiting { host.enqueue(request) }
        }
    }
}

extension LoopReference {
    /// Returns once the store has answered every publish that the loop's sessions handed over up to now.
    fileprivate func appendsAnswered() async {
        try? await submit { $0.appendsAnswered() }.get()
    }
}
