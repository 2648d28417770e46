import HummingbirdTLS
import LonglineServer
import LonglineStore
import NIOCore
import NIOSSL
import QUICEngine
import Synchronization

/// The certificate that listeners present, which may be replaced while they listen.
final class ServingCertificate: Sendable {
    private struct Identity {
        var chain: [NIOSSLCertificateSource]
        var key: NIOSSLPrivateKeySource
        var validity: CertificateValidity
    }

    private let provider: @Sendable () throws -> TLSServerCredentials
    private let current: Mutex<Identity>

    /// - Throws: ``ControlError/Code/certificate``.
    init(_ provider: @escaping @Sendable () throws -> TLSServerCredentials) throws(ControlError) {
        self.provider = provider
        current = Mutex(try Self.read(provider))
    }

    /// Asks the provider again. Connections that are up keep theirs. As for the server, a certificate that is not good now takes the
    /// place of none that is.
    /// - Throws: ``ControlError/Code/certificate``: the old one stays.
    func reload() throws(ControlError) {
        let next = try Self.read(provider)
        let now = WallClock.milliseconds() / 1_000
        if let problem = next.validity.problem(replacing: current.withLock({ $0.validity }), at: now) {
            throw ControlError(
                .certificate, message: "the new certificate \(problem)", advice: "get one that is good now")
        }
        current.withLock { $0 = next }
    }

    /// TLS for a listener, which asks for the certificate anew with each handshake.
    func configuration() throws -> TLSConfiguration {
        let identity = current.withLock { $0 }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: identity.chain, privateKey: identity.key)
        configuration.minimumTLSVersion = .tlsv12
        configuration.sslContextCallback = { [weak self] _, promise in
            var override = NIOSSLContextConfigurationOverride.noChanges
            if let identity = self?.current.withLock({ $0 }) {
                override.certificateChain = identity.chain
                override.privateKey = identity.key
            }
            promise.succeed(override)
        }
        return configuration
    }

    private static func read(_ provider: () throws -> TLSServerCredentials) throws(ControlError) -> Identity {
        do {
            let credentials = try provider()
            let chain = try NIOSSLCertificate.fromPEMBytes(Array(credentials.certificateChainPEM.utf8))
            let key = try NIOSSLPrivateKey(bytes: Array(credentials.privateKeyPEM.utf8), format: .pem)
            // What does not fit together is refused here, not with the first client.
            let identity = Identity(
                chain: chain.map { .certificate($0) }, key: .privateKey(key), validity: try credentials.validity())
            _ = try NIOSSLContext(
                configuration: .makeServerConfiguration(certificateChain: identity.chain, privateKey: identity.key))
            return identity
        } catch {
            throw ControlError(
                .certificate, message: "can't use the certificate", cause: error,
                advice: "check both PEM files, and that the key belongs to the certificate")
        }
    }
}
