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
        let bytes = try Self.loadOrCreate(at: tlsPath, limit: 64 * 1024, fresh.serialized())
        tlsTicketKeys = try TicketKeyRing(serialized: bytes)
        endpointKey = try Self.loadOrCreate(at: directory + "/endpoint.key", limit: 32, Self.drawKey())
        resumeTicketPath = resumePath
        tlsTicketPath = tlsPath
        try rotateTLSTicketKeys(now: now)
    }

    /// Draws a new TLS ticket master when the newest is a day old, and saves the ring.
    func rotateTLSTicketKeys(now: UInt64) throws {
        var random = SystemRandomNumberGenerator()
        guard tlsTicketKeys.rotate(now: now / 1000, random: &random), let tlsTicketPath else { return }
        try PrivateFile.replace(tlsTicketPath, tlsTicketKeys.serialized())
    }

    private static func drawKey() -> [UInt8] { (0..<32).map { _ in UInt8.random(in: .min ... .max) } }

    private static func loadOrCreate(
        at path: String, limit: Int, _ fresh: [UInt8]
    ) throws(AuthenticationError) -> [UInt8] {
        if let bytes = try PrivateFile.read(path, limit: limit) { return bytes }
        if try PrivateFile.create(path, fresh) { return fresh }
        guard let bytes = try PrivateFile.read(path, limit: limit) else {
            throw AuthenticationError(.keyUnusable, "\(path) came and went")
        }
        return bytes
    }
}
