import NIOCore
import NIOHTTP1

/// Gives a request of HTTP/1.0 the form of HTTP/1.1, as nobody behind this knows the version: one without a Host gets an empty one,
/// and an expectation, which HTTP/1.0 does not have, is not heeded (RFC 9110, section 10.1.1).
final class HTTP10Requests: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(var head) = unwrapInboundIn(data), head.version == .http1_0 else {
            return context.fireChannelRead(data)
        }
        if !head.headers.contains(name: "Host") { head.headers.add(name: "Host", value: "") }
        head.headers.remove(name: "Expect")
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }
}
