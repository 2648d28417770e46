import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOHTTPTypes
import Synchronization

/// Whether a sender that holds its body back was asked for it.
final class BodyDemand: Sendable {
    private let state = Atomic<Bool>(false)

    var wasMade: Bool { state.load(ordering: .acquiring) }

    fileprivate func make() { state.store(true, ordering: .releasing) }
}

/// A body that its sender holds back until it is asked for (`Expect: 100-continue`, RFC 9110, section 10.1.1). The first to read it
/// asks: a request that is refused for what its head says has its answer without.
private struct AwaitedBody: AsyncSequence, Sendable {
    let body: RequestBody
    let channel: any Channel
    let demand: BodyDemand

    struct AsyncIterator: AsyncIteratorProtocol {
        var parts: RequestBody.AsyncIterator
        var channel: (any Channel)?
        let demand: BodyDemand

        mutating func next() async throws -> ByteBuffer? {
            if let channel {
                self.channel = nil
                demand.make()
                try await channel.writeAndFlush(HTTPResponsePart.head(HTTPResponse(status: .continue)))
            }
            return try await parts.next()
        }
    }

    func makeAsyncIterator() -> AsyncIterator {
        AsyncIterator(parts: body.makeAsyncIterator(), channel: channel, demand: demand)
    }
}

extension Request {
    /// The request with a body that is asked for where its sender waits for that.
    /// - Parameter channel: that of the connection (HTTP/1.1), or of the stream (HTTP/2).
    /// - Returns: with it, whether it was asked for; nil: its sender does not wait.
    func asking(over channel: any Channel) -> (request: Request, demand: BodyDemand?) {
        guard headers[.expect]?.lowercased() == "100-continue" else { return (self, nil) }
        let demand = BodyDemand()
        let awaited = AwaitedBody(body: body, channel: channel, demand: demand)
        return (Request(head: head, body: RequestBody(asyncSequence: awaited)), demand)
    }
}
