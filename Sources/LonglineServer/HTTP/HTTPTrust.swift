package import LonglineHTTP
package import NIOCore
package import NIOHTTP1

/// Whom an HTTP request believes to be the other side, where its address says `https`.
public enum HTTPTrust: Hashable, Sendable {
    /// The certificate authorities of the operating system.
    case systemRoots
    /// One authority, or several, in PEM; also a self-signed certificate itself.
    case authorities(pem: String)
}

extension HTTPClient {
    /// - Throws: ``ServerError/Code/invalidConfiguration`` for certificates that can't be read.
    package convenience init(
        endpoint: HTTPEndpoint, headers: HTTPHeaders = [:], trust: HTTPTrust = .systemRoots, group: any EventLoopGroup
    ) throws(ServerError) {
        let authorities: TLSTrust =
            switch trust {
            case .systemRoots: .systemRoots
            case .authorities(let pem): .authorities(pem: pem)
            }
        do {
            try self.init(endpoint, headers: headers, trust: authorities, group: group)
        } catch {
            throw ServerError(
                .invalidConfiguration, message: "the authorities for https can't be used", cause: error.cause ?? error,
                advice: "name a file with certificates in PEM")
        }
    }
}

extension HTTPEndpoint {
    /// Takes an address apart.
    /// - Parameter purpose: what the address is for, to name it in errors.
    package init(_ url: String, of purpose: String = "authorization policy") throws(ServerError) {
        do {
            try self.init(url: url)
        } catch {
            throw ServerError(
                .invalidConfiguration, message: "the address of the \(purpose) \(error.reason)",
                advice: "write it as https://host:port/path or http://host:port/path")
        }
    }
}
