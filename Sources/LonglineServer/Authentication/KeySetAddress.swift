import LonglineHTTP
public import LonglineKeys
import NIOCore
import NIOHTTP1
import NIOPosix

/// A JWKS behind an address (RFC 7517 section 5), fetched with GET over HTTP/1.1 each time the server asks; see
/// ``/LonglineKeys/JSONWebKeySet``.
///
/// The answer has status 200 and at most 64 KiB. Redirections are not followed. `https` verifies the other side's certificate;
/// `http` is for one on this machine or a private network: who can change its answer can be anybody.
public final class KeySetAddress: TokenKeySource {
    /// The address.
    public let url: String
    /// The address without its query, where a secret may be.
    public let name: String
    /// Every minute: others may ask there, too.
    public var interval: Duration { .seconds(60) }
    private let client: HTTPClient

    /// A key set at this address.
    /// - Parameters:
    ///   - url: `https://host[:port][/path]`, or `http://` on the same machine or a private network.
    ///   - trust: whom to believe to be the other side, where the address says `https`.
    /// - Throws: ``ServerError/Code/invalidConfiguration`` for another form of address, or a certificate that can't be read.
    public init(url: String, trust: HTTPTrust = .systemRoots) throws(ServerError) {
        self.url = url
        let endpoint = try HTTPEndpoint(url, of: "key set")
        name = "\(endpoint.isSecure ? "https" : "http")://\(endpoint.authority)\(endpoint.path.prefix { $0 != "?" })"
        client = try HTTPClient(endpoint: endpoint, trust: trust, group: MultiThreadedEventLoopGroup.singleton)
    }

    /// Fetches the set. Ends when its task is cancelled.
    public func keys() async throws -> [VerificationKey] {
        let response = try await client.get()
        guard response.status == 200 else { throw HTTPFailure(reason: "status \(response.status)") }
        return try JSONWebKeySet(json: Array(response.body.readableBytesView)).keys
    }
}
