import HummingbirdCore
import NIOCore
import Synchronization

/// Whether a request's body is being read. The listener may go on with its connection only when nobody reads it.
final class BodyUse: Sendable {
    private enum State { case idle, reading, over }

    private let state = Mutex(State.idle)

    /// Nobody reads it from now on.
    /// - Returns: whether that is so: false while somebody does.
    func end() -> Bool {
        state.withLock { state in
            guard state != .reading else { return false }
            state = .over
            return true
        }
    }

    fileprivate func begin() throws {
        try state.withLock { state in
            guard state != .over else { throw CancellationError() }
            state = .reading
        }
    }

    fileprivate func pause() { state.withLock { $0 = .idle } }
}

/// A body that can be taken away from who reads it.
struct WatchedBody: AsyncSequence, Sendable {
    let body: RequestBody
    let use: BodyUse

    struct AsyncIterator: AsyncIteratorProtocol {
        var parts: RequestBody.AsyncIterator
        let use: BodyUse

        mutating func next() async throws -> ByteBuffer? {
            try use.begin()
            defer { use.pause() }
            return try await parts.next()
        }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(parts: body.makeAsyncIterator(), use: use) }
}
