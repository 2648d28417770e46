import LonglineKeys
import LonglineStore
public import QUICEngine

/// What a server seals and signs with for itself. With the same secrets a restarted server, or another of a group,
/// accepts the tickets that the one before issued.
public struct ServerSecrets: Sendable {
    /// Seals resume tickets, the session protocol's own.
    public let resumeTicketKeys: ResumeTicketKeys
    /// Seals TLS session tickets.
    public let tlsTicketKeys: TicketKeyRing
    /// Signs address tokens and stateless resets: 32 bytes.
    let endpointKey: [UInt8]
    /// Where the resume ticket keys are saved when they rotate, or nil.
    let resumeTicketPath: String?
    private let tlsTicketPath: String?

    /// Secrets that live as long as the process.
    /// - Parameter now: the wall clock, in milliseconds since 1970.
    public init(now: UInt64) {
        var random = SystemRandomNumberGenerator()
        resumeTicketKeys = ResumeTicketKeys(now: now)
        tlsTicketKeys = TicketKeyRing(random: &random, now: now / 1000)
        endpointKey = Self.drawKey()
        resumeTicketPath = nil
        tlsTicketPath = nil
    }

    /// Secrets in files of a directory, made there when they are missing, with mode 0600. Blocks on the disk.
    /// - Throws: ``/LonglineKeys/AuthenticationError``, ``/QUICEngine/QUICError``, when a file can't be read, written, or is damaged.
    public init(directory: String, now: UInt64) throws {
        let resumePath = directory + "/resume-tickets.keys"
        let tlsPath = directory + "/tls-tickets.keys"
        resumeTicketKeys = try ResumeTicketKeys.loadOrCreate(at: resumePath, now: now)
        var random = SystemRandomNumberGenerator()
        let fresh = TicketKeyRing(random: &random, now: now / 1000)
        let bytes = try PrivateFile.loadOrCreate(tlsPath, limit: 64 * 1024) { fresh.serialized() }
        do { tlsTicketKeys = try TicketKeyRing(serialized: bytes) } catch {
            throw AuthenticationError(
                .keyUnusable, "\(tlsPath) is not a file of TLS ticket keys",
                advice: "move it away; a new one is made, and clients make one full handshake")
        }
        let endpointPath = directory + "/endpoint.key"
        endpointKey = try PrivateFile.loadOrCreate(endpointPath, limit: 32) { Self.drawKey() }
        guard endpointKey.count == 32 else {
            throw AuthenticationError(
                .keyUnusable, "\(endpointPath) is not a key of 32 bytes",
                advice: "move it away: a new one is made, and clients notice this restart only by a timeout")
        }
        resumeTicketPath = resumePath
        tlsTicketPath = tlsPath
        // A server starts on a full disk as well: the keys before go on, and it is tried again every hour.
        do { try rotateTLSTicketKeys(now: now) } catch is AuthenticationError {}
    }

    /// Draws a new TLS ticket master when the newest is a day old; the ring is saved before it is used.
    /// - Throws: ``/LonglineKeys/AuthenticationError`` when it can't be saved: the old one then stays in use.
    func rotateTLSTicketKeys(now: UInt64) throws {
        var random = SystemRandomNumberGenerator()
        let next = try TicketKeyRing(serialized: tlsTicketKeys.serialized())
        guard next.rotate(now: now / 1000, random: &random) else { return }
        if let tlsTicketPath { try PrivateFile.replace(tlsTicketPath, next.serialized()) }
        tlsTicketKeys.replace(with: next)
    }

    private static func drawKey() -> [UInt8] { (0..<32).map { _ in UInt8.random(in: .min ... .max) } }
}
