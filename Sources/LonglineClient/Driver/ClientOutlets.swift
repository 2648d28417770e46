import LonglineSession
import LonglineWire
import NIOCore
import Synchronization

/// Where a driver puts what the app reads, from any thread.
struct ClientOutlets: Sendable {
    let states = Broadcast<ConnectionState>(replaysLatest: true, initial: .disconnected) { $1.repeats($0) }
    let notices = Broadcast<ClientNotice>(replaysLatest: false)
    let receipts = Broadcast<Receipt>(replaysLatest: false)
    let sends = Broadcast<SendStatus>(replaysLatest: false, limit: 1_024)
    /// A message left the outbox, or did not come into it after all: there is room for another.
    let room = Broadcast<Void>(replaysLatest: false, limit: 1)
    let messages = HandOverQueue<Message> { $0.payload.readableBytes + 128 }
    /// With more unread than this the client stays away until the app has read: a service that knows its limits keeps far below.
    static let unreadLimit = 256 * 1024 * 1024
    /// Requests that nobody reads are not worth more memory than this.
    let requests = HandOverQueue<IncomingRequest>(
        limit: 100, bytes: FrameLimits.maximumWholePayload, size: \.payload.readableBytes)
    /// Which of the requests that the app has were answered.
    let answers = RequestBoard()
    let signals = LatestBroadcast<SignalKey, ReceivedSignal>(limit: 256)
    let presence = PresenceBoard()
    let confirmations = ConfirmationInbox()
    let lastFailure = LastFailure()

    /// The client has ended for good: nothing more is told. What had arrived of messages can still be read.
    func finish() {
        states.finish()
        notices.finish()
        receipts.finish()
        sends.finish()
        room.finish()
        messages.finish()
        requests.finish()
        answers.finish()
        signals.finish()
        presence.finish()
    }
}

/// Why there is no connection.
final class LastFailure: Sendable {
    private let failure = Mutex<ClientError?>(nil)

    var error: ClientError? { failure.withLock { $0 } }

    func set(_ error: ClientError?) { failure.withLock { $0 = error } }
}
