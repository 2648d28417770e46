import FoundationEssentials
import Logging
import LonglineKeys
public import LonglineServer

/// Where the keys come from that the control layer signs with, and those that others verify with.
public protocol ControlKeySource: Sendable {
    /// The key that signs now.
    func signingKey() throws -> SigningKey
    /// All keys that are trusted: the signing one, those before it, and one that is about to sign.
    func trustedKeys() throws -> [VerificationKey]
}

/// A server's folder, whose keys `longline keys` rotates.
public struct DirectoryControlKeys: ControlKeySource {
    private let directory: ServerDirectory

    /// The keys of this folder.
    public init(_ directory: ServerDirectory) { self.directory = directory }

    /// Reads the file. Blocks on the disk for a moment.
    public func signingKey() throws -> SigningKey { try directory.signingKey() }
    /// Reads the file. Blocks on the disk for a moment.
    public func trustedKeys() throws -> [VerificationKey] { try directory.trustedKeys() }
}

/// The keys in use, looked at again every few seconds: a rotation counts without a word to this process.
actor ControlKeys {
    struct Present: Sendable {
        let tokens: TokenSigner
        let access: StatementSigner
        /// The public keys as a JWKS.
        let keySet: Data
    }

    private let source: any ControlKeySource
    private let interval: Duration
    private let logger: Logger
    private var present: Present?
    private var readAt: ContinuousClock.Instant?

    init(_ source: any ControlKeySource, interval: Duration, logger: Logger) {
        self.source = source
        self.interval = interval
        self.logger = logger
    }

    /// The present keys.
    /// - Throws: when they can't be read, and never could be.
    func current() async throws -> Present {
        let now = ContinuousClock.now
        if let present, let readAt, now - readAt < interval { return present }
        readAt = now
        do {
            let key = try source.signingKey()
            let keySet = Data(JSONWebKeySet(keys: try source.trustedKeys()).json)
            if let present, present.tokens.key.keyID == key.keyID, present.keySet == keySet { return present }
            let next = Present(
                tokens: await TokenSigner(key: key),
                access: try StatementSigner(key: key, type: AccessStatement.type), keySet: keySet)
            present = next
            return next
        } catch {
            logger.error("signing keys not read: the old ones stay", metadata: ["error": "\(error)"])
            guard let present else { throw error }
            return present
        }
    }
}
