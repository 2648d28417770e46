import Crypto
import NIOCore
import NIOSSL

/// Whom a request believes to be the other side.
package enum TLSTrust: Hashable, Sendable {
    /// The certificate authorities of the operating system.
    case systemRoots
    /// One authority, or several, in PEM; also a self-signed certificate itself.
    case authorities(pem: String)
    /// The certificate's public key is one of these: SHA-256 of the SubjectPublicKeyInfo in DER. Issuer and name are not looked at.
    case pinnedPublicKey(sha256: [[UInt8]])
    /// Anyone.
    case insecureNoVerification
}

/// What connections are encrypted with. Making one reads certificates: it is made once.
package struct TLSClient: Sendable {
    private let context: NIOSSLContext
    private let pins: Set<[UInt8]>?

    /// - Throws: what can't be used of the trust.
    package init(_ trust: TLSTrust) throws(HTTPFailure) {
        do {
            var configuration = TLSConfiguration.makeClientConfiguration()
            configuration.minimumTLSVersion = .tlsv12
            configuration.applicationProtocols = ["http/1.1"]
            // Whoever is gone says no goodbye, and holds a socket as long.
            configuration.shutdownTimeout = .seconds(1)
            var pins: Set<[UInt8]>?
            switch trust {
            case .systemRoots: break
            case .authorities(let pem):
                let certificates = try NIOSSLCertificate.fromPEMBytes(Array(pem.utf8))
                guard !certificates.isEmpty else { throw HTTPFailure(reason: "no certificate in it") }
                configuration.trustRoots = .certificates(certificates)
            case .pinnedPublicKey(let keys):
                // With no verification at all the callback, which compares the pins, would never be called.
                configuration.certificateVerification = .noHostnameVerification
                pins = Set(keys)
            case .insecureNoVerification: configuration.certificateVerification = .none
            }
            context = try NIOSSLContext(configuration: configuration)
            self.pins = pins
        } catch {
            throw HTTPFailure(reason: "the certificates to trust can't be used", cause: error)
        }
    }

    /// - Parameter serverName: nil: the certificate has to be for the address.
    func handler(serverName: String?) throws -> NIOSSLClientHandler {
        guard let pins else { return try NIOSSLClientHandler(context: context, serverHostname: serverName) }
        return try NIOSSLClientHandler(
            context: context, serverHostname: serverName,
            customVerificationCallback: { chain, promise in
                // The peer's own certificate comes first, and the handshake proves that it has the key.
                guard let key = try? chain.first?.extractPublicKey().toSPKIBytes() else {
                    return promise.succeed(.failed)
                }
                promise.succeed(pins.contains(Array(SHA256.hash(data: key))) ? .certificateVerified : .failed)
            })
    }
}
