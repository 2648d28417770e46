import FoundationEssentials
import Logging
import LonglineKeys
public import LonglineServer

/// Where the keys come from that the control layer signs with, and those that others verify with.
public protocol ControlKeySource: Sendable {
    /// The key that signs now.
    func signingKey() throws -> SigningKey
    /// All keys that are trusted: the signing one, without which nothing is signed, those before it, and one that is about to sign.
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

/// The keys in use. They are read again when the server reads its own (``reload()``), and every few seconds, for a folder whose
/// server nobody told.
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
    /// Counts the readings: of two at a time the later one stays.
    private var readings: UInt64 = 0
    private var shown: UInt64 = 0

    init(_ source: any ControlKeySource, interval: Duration, logger: Logger) {
        self.source = source
        self.interval = interval
        self.logger = logger
    }

    /// The present keys.
    /// - Throws: when they can't be read, and never could be.
    func current() async throws -> Present {
        if let present, let readAt, ContinuousClock.now - readAt < interval { return present }
        do { return try await read() } catch {
            guard let present else { throw error }
            return present
        }
    }

    /// Reads the keys again, now.
    /// - Throws: when they can't be read: the old ones stay.
    func reload() async throws { _ = try await read() }

    private func read() async throws -> Present {
        readAt = .now
        readings += 1
        let number = readings
        do {
            let (key, trusted) = try readTogether()
            let keySet = Data(JSONWebKeySet(keys: trusted).json)
            var next = present
            if next?.tokens.key.keyID != key.keyID || next?.keySet != keySet {
                next = Present(
                    tokens: await TokenSigner(key: key),
                    access: try StatementSigner(key: key, type: AccessStatement.type), keySet: keySet)
            }
            if number > shown {
                shown = number
                present = next
            }
        } catch {
            logger.error("signing keys not read: the old ones stay", metadata: ["error": "\(error)"])
            throw error
        }
        guard let present else { preconditionFailure("the first reading is shown") }
        return present
    }

    /// The signing key, and then the set with it. A key that isn't in the set was taken out of it between the two: nobody would take
    /// what it signs.
    private func readTogether() throws -> (SigningKey, [VerificationKey]) {
        for _ in 0..<Self.attempts {
            let key = try source.signingKey()
            let trusted = try source.trustedKeys()
            if trusted.contains(where: { $0.keyID == key.keyID }) { return (key, trusted) }
        }
        throw ControlError(
            .signingKey, message: "the key that signs is not among those that are trusted",
            advice: "trust it, or have another one sign")
    }

    private static let attempts = 3
}
