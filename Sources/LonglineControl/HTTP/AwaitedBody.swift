import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOHTTPTypes

/// A body that its sender holds back until it is asked for (`Expect: 100-continue`, RFC 9110, section 10.1.1). The first to read it
/// asks: a request that is refused for what its head says has its answer without.
private struct AwaitedBody: AsyncSequence, Sendable {
    let body: RequestBody
    let channel: any Channel

    struct AsyncIterator: AsyncIteratorProtocol {
        var parts: RequestBody.AsyncIterator
        var channel: (any Channel)?

        mutating func next() async throws -> ByteBuffer? {
            if let channel {
                self.channel = nil
                try await channel.writeAndFlush(HTTPResponsePart.head(HTTPResponse(status: .continue)))
            }
            return try await parts.next()
        }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(parts: body.makeAsyncIterator(), channel: channel) }
}

extension Request {
    /// The request with a body that is asked for where its sender waits for that.
    /// - Parameter channel: that of the connection (HTTP/1.1), or of the stream (HTTP/2).
    func asking(over channel: any Channel) -> Request {
        guard headers[.expect]?.lowercased() == "100-continue" else { return self }
        return Request(head: head, body: RequestBody(asyncSequence: AwaitedBody(body: body, channel: channel)))
    }
}
