import NIOCore

/// Ends a connection that takes one of the listener's places and does nothing with it.
///
/// ```
///   accepted ──TLS handshake──▶ quiet ◀──requests──▶ working
///      │ handshakeTimeout,        │ idleTimeout         │ nothing that was written left for idleTimeout
///      │ or the listener ends     │ + closeTimeout      │ (so it is when quiet)
///      ▼                          ▼                     ▼
///    ended                      ended                 ended
/// ```
/// It stands between the socket and TLS: what ends there needs no answer of the peer, as a shutdown of TLS and an orderly end of
/// HTTP/2 do. These have `closeTimeout`, behind the time after which Hummingbird begins them.
///
/// Belongs to its channel's event loop.
final class ConnectionGuard: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// What may take how long.
    struct Timeouts: Sendable {
        let handshake: TimeAmount
        let idle: TimeAmount
        let close: TimeAmount

        init(_ limits: ControlLimits) {
            handshake = .init(limits.handshakeTimeout)
            idle = .init(limits.idleTimeout)
            close = .init(limits.closeTimeout)
        }
    }

    private enum Phase {
        case handshaking(since: NIODeadline)
        case quiet(since: NIODeadline)
        case working(requests: Int)
    }

    /// Bytes of one write. What is larger is cut, so that a slow reader is seen to read.
    static let part = 64 * 1024

    private let timeouts: Timeouts
    private let changed: (_ isWorking: Bool) -> Void
    /// Requests that are worked on: those that came, but for answers that wait for the client.
    private var work = 0
    private var phase = Phase.handshaking(since: .distantFuture)
    private let writes = PendingWrites()
    private var timer = DeadlineTimer()
    private var context: ChannelHandlerContext?

    /// - Parameter changed: told when it is up, when a request is worked on, and when none is any more.
    init(_ timeouts: Timeouts, changed: @escaping (_ isWorking: Bool) -> Void = { _ in }) {
        self.timeouts = timeouts
        self.changed = changed
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        phase = .handshaking(since: context.eventLoop.now)
        watch()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer.cancel()
        self.context = nil
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Nobody waits for an answer yet.
        if event is ChannelShouldQuiesceEvent, case .handshaking = phase { end() }
        context.fireUserInboundEventTriggered(event)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        var rest = unwrapOutboundIn(data)
        while rest.readableBytes > Self.part, let part = rest.readSlice(length: Self.part) {
            context.write(wrapOutboundOut(part), promise: followed(nil, on: context.eventLoop))
        }
        context.write(wrapOutboundOut(rest), promise: followed(promise, on: context.eventLoop))
    }

    private func followed(_ promise: EventLoopPromise<Void>?, on loop: any EventLoop) -> EventLoopPromise<Void> {
        defer { watch() }
        return writes.follow(promise, on: loop)
    }

    /// The TLS handshake is done.
    func handshakeCompleted() {
        guard let context, case .handshaking = phase else { return }
        phase = .quiet(since: context.eventLoop.now)
        changed(false)
        watch()
    }

    /// A request's head came.
    func requestBegan() {
        if case .working(let requests) = phase {
            phase = .working(requests: requests + 1)
        } else {
            phase = .working(requests: 1)
        }
    }

    /// Its answer left, or won't.
    func requestEnded() {
        guard let context, case .working(let requests) = phase else { return }
        phase = requests > 1 ? .working(requests: requests - 1) : .quiet(since: context.eventLoop.now)
        watch()
    }

    /// Closes the socket at once.
    func end() { context?.close(mode: .all, promise: nil) }

    /// A request is worked on.
    func workBegan() {
        work += 1
        if work == 1 { changed(true) }
    }

    /// Its answer was made, whether its client takes that or not, or is not wanted any more.
    func workEnded() {
        work -= 1
        if work == 0 { changed(false) }
    }

    /// Closes the socket, unless a request is worked on.
    func endIfIdle() { if work == 0 { end() } }

    private var deadline: NIODeadline? {
        let ofPhase: NIODeadline? =
            switch phase {
            case .handshaking(let since): since + timeouts.handshake
            case .quiet(let since): since + timeouts.idle + timeouts.close
            case .working: nil
            }
        return [ofPhase, writes.deadline(timeouts.idle)].compactMap { $0 }.min()
    }

    private func watch() {
        guard let context, let deadline else { return }
        timer.arm(deadline, on: context.eventLoop) { [weak self] in self?.check() }
    }

    private func check() {
        guard let context, let deadline else { return }
        if deadline <= context.eventLoop.now { end() } else { watch() }
    }
}

@available(*, unavailable)
extension ConnectionGuard: Sendable {}

/// What was written and has not left yet. Belongs to one event loop.
final class PendingWrites {
    private var count = 0
    private var lastProgress = NIODeadline.distantPast

    /// Counts a write until its promise is kept; one without gets its own. On the loop.
    func follow(_ promise: EventLoopPromise<Void>?, on loop: any EventLoop) -> EventLoopPromise<Void> {
        let promise = promise ?? loop.makePromise()
        if count == 0 { lastProgress = loop.now }
        count += 1
        promise.futureResult.assumeIsolated().whenComplete { _ in
            self.count -= 1
            self.lastProgress = loop.now
        }
        return promise
    }

    /// When something has to have left; nil: nothing waits.
    func deadline(_ timeout: TimeAmount) -> NIODeadline? { count == 0 ? nil : lastProgress + timeout }
}

/// One timer of an event loop, which goes off at the earliest of the deadlines that it was armed with. Whether that still holds is
/// asked then: most deadlines move on before.
struct DeadlineTimer {
    private var armed: NIODeadline?
    private var scheduled: Scheduled<Void>?

    /// On the loop.
    mutating func arm(_ deadline: NIODeadline, on loop: any EventLoop, _ body: @escaping () -> Void) {
        if let armed, armed <= deadline, armed > loop.now { return }
        scheduled?.cancel()
        armed = deadline
        scheduled = loop.assumeIsolated().scheduleTask(deadline: deadline, body)
    }

    mutating func cancel() {
        scheduled?.cancel()
        (armed, scheduled) = (nil, nil)
    }
}
