import Foundation
import LonglineServer
import QUICEngine
import Synchronization

/// Where certificate and key are; other files may take their place while the server runs.
final class CertificateFiles: Sendable {
    /// The two paths.
    struct Paths: Equatable, Sendable {
        let certificate: String
        let key: String
    }

    private let current: Mutex<Paths>

    init(_ paths: Paths) { current = Mutex(paths) }

    var paths: Paths {
        get { current.withLock { $0 } }
        set { current.withLock { $0 = newValue } }
    }

    /// Reads them.
    func credentials() throws -> TLSServerCredentials {
        let paths = paths
        try SecretFile.check(paths.key, "--key", readers: .group)
        return TLSServerCredentials(
            certificateChainPEM: try ServerCommand.text(ofFile: paths.certificate),
            privateKeyPEM: try ServerCommand.text(ofFile: paths.key))
    }
}

/// Public keys in PEM files, which are read again and again.
final class TokenKeyFiles: TokenKeySource {
    private let current: Mutex<[String]>

    init(_ paths: [String]) { current = Mutex(paths) }

    let name = "--token-key"

    var paths: [String] {
        get { current.withLock { $0 } }
        set { current.withLock { $0 = newValue } }
    }

    func keys() async throws -> [VerificationKey] { try Self.keys(in: paths) }

    /// - Throws: when one can't be read, or holds no key.
    static func keys(in paths: [String]) throws -> [VerificationKey] {
        try paths.map { try VerificationKey(pem: try ServerCommand.text(ofFile: $0)) }
    }
}
