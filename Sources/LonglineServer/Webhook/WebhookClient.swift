import LonglineHTTP
import NIOCore
import NIOHTTP1
import NIOPosix

extension WebhookSettings {
    /// What asks the endpoint.
    func client(_ group: any EventLoopGroup) throws(ServerError) -> HTTPClient {
        try HTTPClient(endpoint: try HTTPEndpoint(url, of: "webhook"), trust: trust, group: group)
    }
}

extension WebhookConfiguration {
    /// Whether a server can be made with it. Asks nobody.
    /// - Throws: ``ServerError/Code/invalidConfiguration``.
    package func check() throws(ServerError) {
        try validate()
        for settings in [standard].compactMap({ $0 }) + tenants.values {
            _ = try settings.client(MultiThreadedEventLoopGroup.singleton)
        }
    }
}

extension HTTPClient {
    /// Posts, and waits no longer than so long for the answer.
    func post(
        _ body: ByteBuffer, headers: HTTPHeaders, within deadline: Duration
    ) async throws -> HTTPConnection.Response {
        try await withThrowingTaskGroup(of: HTTPConnection.Response?.self) { group in
            group.addTask { try await self.post(body, headers: headers) }
            group.addTask {
                try await Task.sleep(for: deadline)
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let response = first else {
                throw HTTPFailure(reason: "no answer in \(deadline)")
            }
            return response
        }
    }
}
