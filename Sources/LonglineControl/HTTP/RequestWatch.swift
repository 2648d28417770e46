import HTTPTypes
import NIOCore
import NIOHTTP2
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOHTTPTypesHTTP2

/// Tells the connection's guard of requests, and closes where an answer does not leave: of HTTP/2 the stream alone, as its window
/// is the stream's own. Ends a stream of HTTP/2 whose client goes on with a body behind its answer.
///
/// Stands behind what reads and writes HTTP, in the channel of a connection (HTTP/1.1) or of a stream (HTTP/2). Belongs to its
/// channel's event loop, which is that of the connection.
final class RequestWatch: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    /// Bytes of a body that may come behind its answer, as those that were on the way do: HTTP/2's first window of a stream.
    static let leftover = 65_535

    private let timeout: TimeAmount
    /// Whether the channel is that of a stream.
    private var isStream = false
    /// Bytes of a body that came behind its answer.
    private var unread = 0
    private var guarded: ConnectionGuard?
    /// Requests whose answer has not left.
    private var open = 0
    /// Those of them, the oldest ones, whose answer was begun.
    private var begun = 0
    /// Whether the oldest is worked on. What comes behind an answer that is not taken waits for that.
    private var isWorking = false
    private let writes = PendingWrites()
    private var timer = DeadlineTimer()
    private var context: ChannelHandlerContext?

    /// - Parameter timeout: how long nothing may leave of what was written.
    init(timeout: TimeAmount) { self.timeout = timeout }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        for channel in [context.channel, context.channel.parent].compactMap({ $0 }) where guarded == nil {
            // The parent of a connection is the listener, on a loop of its own.
            guard channel.eventLoop.inEventLoop else { break }
            guarded = try? channel.pipeline.syncOperations.handler(type: ConnectionGuard.self)
        }
        let pipeline = context.pipeline.syncOperations
        if let codec = try? pipeline.handler(type: HTTP1ToHTTPServerCodec.self) {
            try? pipeline.addHandler(HTTP10Requests(), position: .before(codec))
            try? pipeline.addHandler(LastRequests(), position: .before(codec))
        } else {
            isStream = true
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer.cancel()
        while open > 0 { ended() }
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head:
            open += 1
            guarded?.requestBegan()
            noteWork()
        case .body(let part) where isStream && open == 0: noteUnread(part.readableBytes)
        case .body, .end: break
        }
        context.fireChannelRead(data)
    }

    /// Hummingbird reads what comes behind the answer, and so gives the client room for more, without end. Over HTTP/1.1 the guard's time
    /// for a connection without a request bounds it; here other requests may come as long.
    private func noteUnread(_ bytes: Int) {
        let before = unread
        unread += bytes
        guard let context, before <= Self.leftover, unread > Self.leftover else { return }
        // Not within the stream's own events. With this code the client keeps the answer (RFC 9113, section 8.1).
        context.eventLoop.assumeIsolated().execute { [weak self] in
            self?.context?.triggerUserOutboundEvent(
                NIOHTTP2FramePayloadToHTTPEvent.reset(code: .noError), promise: nil)
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let last = followed(promise, on: context.eventLoop)
        switch unwrapOutboundIn(data) {
        case .body(var rest):
            while rest.readableBytes > ConnectionGuard.part, let part = rest.readSlice(length: ConnectionGuard.part) {
                context.write(wrapOutboundOut(.body(part)), promise: followed(nil, on: context.eventLoop))
            }
            context.write(wrapOutboundOut(.body(rest)), promise: last)
        case .end(let trailers):
            last.futureResult.assumeIsolated().whenComplete { _ in self.ended() }
            context.write(wrapOutboundOut(.end(trailers)), promise: last)
        case .head(let head):
            if head.status.kind != .informational {
                begun += 1
                noteWork()
            }
            context.write(wrapOutboundOut(.head(head)), promise: last)
        }
    }

    private func followed(_ promise: EventLoopPromise<Void>?, on loop: any EventLoop) -> EventLoopPromise<Void> {
        defer { watch() }
        return writes.follow(promise, on: loop)
    }

    private func ended() {
        guard open > 0 else { return }
        open -= 1
        begun = max(begun - 1, 0)
        guarded?.requestEnded()
        noteWork()
    }

    private func noteWork() {
        let isWorking = open > 0 && begun == 0
        guard isWorking != self.isWorking else { return }
        self.isWorking = isWorking
        if isWorking { guarded?.workBegan() } else { guarded?.workEnded() }
    }

    private func watch() {
        guard let context, let deadline = writes.deadline(timeout) else { return }
        timer.arm(deadline, on: context.eventLoop) { [weak self] in self?.check() }
    }

    private func check() {
        guard let context, let deadline = writes.deadline(timeout) else { return }
        if deadline <= context.eventLoop.now { context.close(mode: .all, promise: nil) } else { watch() }
    }
}

@available(*, unavailable)
extension RequestWatch: Sendable {}
