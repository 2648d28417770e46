import Crypto
import FoundationEssentials
public import LonglineKeys
public import LonglineSession
public import LonglineStore
public import LonglineWire
public import NIOCore
import Synchronization

/// Somebody whose credential was accepted, with the generations that the credential was issued under.
public struct AuthenticatedIdentity: Hashable, Sendable {
    /// Who it is and what it may do.
    public var identity: SessionIdentity
    /// Revocations beyond these shut the identity out.
    public var generations: RevocationGenerations
    /// Names the key that the token was signed with: once that is trusted no more, its tickets are void.
    var keyTag: UInt64
    /// When the token was issued, in milliseconds since 1970.
    var issuedAt: UInt64

    /// An authenticated identity, from a token of no key in particular.
    public init(identity: SessionIdentity, generations: RevocationGenerations) {
        self.init(identity: identity, generations: generations, keyTag: 0, issuedAt: 0)
    }

    init(identity: SessionIdentity, generations: RevocationGenerations, keyTag: UInt64, issuedAt: UInt64 = 0) {
        self.issuedAt = issuedAt
        self.identity = identity
        self.generations = generations
        self.keyTag = keyTag
    }
}

/// Seals identities into resume tickets, and opens them again.
///
/// A ticket holds what its token said and is worth no more: it ends no later, carries the token's ID, key, scopes, platform, login
/// epoch, time of issue and revocation generations, and is checked against revocations and trusted keys like the token. Its bytes:
///
///     version (1) | key ID (4) | nonce (12) | AES-256-GCM(identity) | tag (16)
///
/// with version and key ID authenticated. Opening costs a few microseconds.
public final class ResumeTicketSealer: Sendable {
    private static let version: UInt8 = 4
    private static let headerSize = 5

    /// The longest life of a ticket, in milliseconds.
    public let maximumLifetime: UInt64
    private let ring: Mutex<ResumeTicketKeys>

    /// A sealer. Tickets live as long as the ring's keys open them, or shorter.
    public init(keys: ResumeTicketKeys, maximumLifetime: UInt64 = 7 * 86_400_000) {
        self.maximumLifetime = min(maximumLifetime, keys.openingTime)
        ring = Mutex(keys)
    }

    /// Rotates the keys if that is due; the new ring is saved before it is used. Call it about once an hour, off the
    /// event loops: it blocks on the disk.
    /// - Parameters:
    ///   - now: the wall clock, in milliseconds since 1970.
    ///   - path: the ring's file, or nil for a ring that lives in memory only.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``; the old ring then stays in use.
    public func rotateKeysIfDue(now: UInt64, savingTo path: String?) throws(AuthenticationError) {
        var next = ring.withLock { $0 }
        guard next.rotate(now: now) else { return }
        if let path { try next.save(to: path) }
        ring.withLock { $0 = next }
    }

    /// Seals an identity.
    /// - Returns: nil when the identity's own time is over at `now` (milliseconds since 1970).
    public func seal(_ authenticated: AuthenticatedIdentity, now: UInt64) -> Ticket? {
        let expiry = min(authenticated.identity.expiry, now &+ maximumLifetime)
        guard expiry > now else { return nil }
        let plain = Self.encode(authenticated, ticketExpiry: expiry)
        guard let key = ring.withLock({ $0.keys.first }) else { return nil }
        var ticket = ByteBuffer()
        ticket.writeInteger(Self.version)
        ticket.writeInteger(key.id)
        let header = Data(ticket.readableBytesView)
        guard let box = try? AES.GCM.seal(Data(plain.readableBytesView), using: key.secret, authenticating: header),
            let sealed = box.combined
        else { return nil }
        ticket.writeBytes(sealed)
        assert(ticket.readableBytes <= FrameLimits.maximumTicket)
        return Ticket(ticket: ticket, expiry: expiry)
    }

    /// Opens a ticket.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/ticketRejected``, or ``/LonglineKeys/AuthenticationError/Code/expired``.
    public func open(_ ticket: ByteBuffer, now: UInt64) throws(AuthenticationError) -> AuthenticatedIdentity {
        guard ticket.readableBytes <= FrameLimits.maximumTicket else {
            throw AuthenticationError(.tooLarge, "the ticket has more than \(FrameLimits.maximumTicket) bytes")
        }
        var rest = ticket
        guard let header = rest.readBytes(length: Self.headerSize), header[0] == Self.version,
            let id = ticket.getInteger(at: ticket.readerIndex + 1, as: UInt32.self),
            let key = ring.withLock({ $0.key(id) }),
            let box = try? AES.GCM.SealedBox(combined: Data(rest.readableBytesView)),
            let plain = try? AES.GCM.open(box, using: key.secret, authenticating: Data(header)),
            let (authenticated, expiry) = Self.decode(ByteBuffer(bytes: plain))
        else {
            throw AuthenticationError(.ticketRejected, "the ticket is not one of ours, or its key is gone")
        }
        // No clock skew is granted: this service wrote the time itself.
        guard now < expiry else { throw AuthenticationError(.expired, "the ticket has expired") }
        return authenticated
    }

    private static func encode(_ authenticated: AuthenticatedIdentity, ticketExpiry: UInt64) -> ByteBuffer {
        let identity = authenticated.identity
        var scopes: TokenScopes = []
        if identity.mayPublish { scopes.insert(.publish) }
        if identity.mayReceive { scopes.insert(.receive) }
        if identity.mayJoin { scopes.insert(.join) }
        if identity.mayManage { scopes.insert(.manage) }
        if identity.mayWatch { scopes.insert(.presence) }
        if identity.mayErase { scopes.insert(.erase) }
        var buffer = ByteBuffer()
        let texts = [
            identity.tenant.description, identity.user.description, identity.device.description, identity.tokenID,
            identity.platform.description,
        ]
        for text in texts {
            precondition(text.utf8.count <= 255, "identifiers and token IDs are checked before they get here")
            buffer.writeInteger(UInt8(text.utf8.count))
            buffer.writeString(text)
        }
        buffer.writeMultipleIntegers(
            identity.loginEpoch, identity.expiry, ticketExpiry, authenticated.generations.user,
            authenticated.generations.device, authenticated.keyTag, authenticated.issuedAt, scopes.rawValue)
        for grant in identity.grants {
            let text = grant.pattern.description
            buffer.writeMultipleIntegers(grant.action.rawValue, UInt8(text.utf8.count))
            buffer.writeString(text)
        }
        return buffer
    }

    private static func decode(_ plain: ByteBuffer) -> (AuthenticatedIdentity, ticketExpiry: UInt64)? {
        var buffer = plain
        func text() -> String? {
            guard let count = buffer.readInteger(as: UInt8.self) else { return nil }
            return buffer.readString(length: Int(count))
        }
        guard let tenant = text().flatMap({ try? TenantID($0) }), let user = text().flatMap({ try? UserID($0) }),
            let device = text().flatMap({ try? DeviceID($0) }), let tokenID = text(),
            let platform = text().flatMap({ try? DevicePlatform($0) }),
            let (
                loginEpoch, expiry, ticketExpiry, userGeneration, deviceGeneration, keyTag, issuedAt,
                scopeBits
            ) =
                buffer.readMultipleIntegers(
                    as: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt8).self)
        else { return nil }
        var grants: [ChannelGrant] = []
        while buffer.readableBytes > 0 {
            guard let action = buffer.readInteger(as: UInt8.self).flatMap({ ChannelAction(rawValue: $0) }),
                let pattern = text().flatMap({ ChannelPattern($0) })
            else { return nil }
            grants.append(ChannelGrant(action, pattern))
        }
        let scopes = TokenScopes(rawValue: scopeBits)
        let identity = SessionIdentity(
            tenant: tenant, user: user, device: device, loginEpoch: loginEpoch, tokenID: tokenID, expiry: expiry,
            mayPublish: scopes.contains(.publish), mayReceive: scopes.contains(.receive),
            mayJoin: scopes.contains(.join), mayManage: scopes.contains(.manage),
            mayWatch: scopes.contains(.presence), mayErase: scopes.contains(.erase), grants: grants, platform: platform)
        let generations = RevocationGenerations(user: userGeneration, device: deviceGeneration)
        return (
            AuthenticatedIdentity(
                identity: identity, generations: generations, keyTag: keyTag, issuedAt: issuedAt), ticketExpiry
        )
    }
}
