import NIOCore
import NIOHTTP1

/// Has whoever is behind this know the last request of a connection, however its client says that it is (RFC 9112, section 9.3): by
/// `close` among the options of any of its Connection fields, or by HTTP/1.0 without `keep-alive`. So is one of HTTP/1.0 with a
/// Transfer-Encoding, which HTTP/1.0 doesn't have: whoever passed it on may see its end elsewhere (RFC 9112, section 6.1).
/// So is one that asks for another protocol (RFC 9110, section 7.8) or a tunnel: NIO's parser takes what comes behind it for that, and
/// reads nothing more. Hummingbird looks for one spelling, `Connection: close` and nothing else, and that is what such a request gets.
final class LastRequests: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(var head) = unwrapInboundIn(data), Self.isLast(head) else {
            return context.fireChannelRead(data)
        }
        head.headers.replaceOrAdd(name: "Connection", value: "close")
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }

    private static func isLast(_ head: HTTPRequestHead) -> Bool {
        let options = head.headers[canonicalForm: "Connection"].map { $0.lowercased() }
        if options.contains("close") || head.method == .CONNECT { return true }
        if options.contains("upgrade"), head.headers.contains(name: "Upgrade") { return true }
        guard head.version == .http1_0 else { return false }
        return !options.contains("keep-alive") || head.headers.contains(name: "Transfer-Encoding")
    }
}
