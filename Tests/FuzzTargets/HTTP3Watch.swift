import NIOCore
import QUICEngine
import Synchronization

/// What the application saw: messages that its tasks got, and how far they came.
final class HTTP3Watch: Sendable {
    struct Message {
        var stream: QUICStreamID?
        /// The lines of its header section, pseudo-header fields among them.
        var section: [HTTP3Choices.Field] = []
        var contentLength: UInt64?
        /// Method or status forbid a body, whatever the content length says.
        var hasNoBody = false
        var body: [UInt8] = []
        /// The end of the body came, without an error.
        var isEnded = false
        /// The task that had it is over.
        var isOver = false
    }

    private struct State {
        var messages: [Message] = []
        var finding: FuzzFinding?
    }

    private let state = Mutex(State())

    var messages: [Message] { state.withLock { $0.messages } }
    var finding: FuzzFinding? { state.withLock { $0.finding } }

    func note(_ text: String) {
        state.withLock { if $0.finding == nil { $0.finding = FuzzFinding(text) } }
    }

    /// A task begins.
    /// - Returns: its number.
    func begin() -> Int {
        state.withLock {
            $0.messages.append(Message())
            return $0.messages.count - 1
        }
    }

    func change(_ number: Int, _ change: (inout Message) -> Void) {
        state.withLock { change(&$0.messages[number]) }
    }

    func received(_ piece: ByteBuffer, _ number: Int) {
        if piece.readableBytes == 0 { note("an empty piece of a body") }
        if messages[number].isEnded { note("a body goes on behind its end") }
        change(number) { $0.body.append(contentsOf: piece.readableBytesView) }
    }

    func over(_ number: Int) {
        if messages[number].isOver { note("a task ended twice") }
        change(number) { $0.isOver = true }
    }
}
