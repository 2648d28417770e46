/// Why a link or session ended. The range says what the client does next (``ReconnectPolicy``).
///
/// On QUIC the code is also the application error code of CONNECTION_CLOSE.
public struct CloseCode: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number, known or not: a code of a later version keeps its range's meaning.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    // 1000...1999: reconnect with back-off.
    /// The peer is done; no error.
    public static let normal = CloseCode(rawValue: 1000)
    /// The service stops or restarts.
    public static let shuttingDown = CloseCode(rawValue: 1001)
    /// No packet arrived within the idle timeout.
    public static let idle = CloseCode(rawValue: 1002)
    /// The service has no room for this connection.
    public static let overloaded = CloseCode(rawValue: 1003)
    /// Something broke inside the service; its log says what.
    public static let internalError = CloseCode(rawValue: 1004)
    /// `CONNECT` did not come in time.
    public static let connectTimeout = CloseCode(rawValue: 1005)
    /// The connect number was lower than one that was seen.
    public static let stale = CloseCode(rawValue: 1006)
    // 2000...2999: reconnect to the named access point, in the given time slot.
    /// Another node shall be used.
    public static let redirect = CloseCode(rawValue: 2000)
    // 3000...3999: get a new token first.
    /// The token's or ticket's time is over.
    public static let credentialExpired = CloseCode(rawValue: 3000)
    /// The token or ticket is forged, damaged or unknown.
    public static let credentialInvalid = CloseCode(rawValue: 3001)
    /// The token, device or user was revoked.
    public static let credentialRevoked = CloseCode(rawValue: 3002)
    /// The resume ticket isn't accepted any more; a token is.
    public static let ticketRejected = CloseCode(rawValue: 3003)
    // 4000...4999: upgrade the app.
    /// No protocol version in common.
    public static let versionUnsupported = CloseCode(rawValue: 4000)
    // 5000...5999: stop.
    /// A frame could not be parsed.
    public static let malformedFrame = CloseCode(rawValue: 5000)
    /// A frame was larger than the limit.
    public static let frameTooLarge = CloseCode(rawValue: 5001)
    /// A frame came where it has no place.
    public static let unexpectedFrame = CloseCode(rawValue: 5002)
    /// An unknown frame type that may not be skipped.
    public static let unknownFrame = CloseCode(rawValue: 5003)
    /// The peer took more than a limit allows.
    public static let limitExceeded = CloseCode(rawValue: 5004)
    /// Another connection of the same device took over.
    public static let replaced = CloseCode(rawValue: 5005)
    /// The token does not allow what was asked, or names another tenant.
    public static let forbidden = CloseCode(rawValue: 5006)
    /// The user logged out, or an operator ended the session.
    public static let loggedOut = CloseCode(rawValue: 5007)
    /// A newer login on another of the user's devices took the place that the app's device policy gives.
    public static let evicted = CloseCode(rawValue: 5008)

    /// What the client does next.
    public var policy: ReconnectPolicy {
        switch rawValue {
        case 2000..<3000: .redirect
        case 3000..<4000: .newToken
        case 4000..<5000: .upgrade
        case 5000..<6000: .stop
        default: .backOff
        }
    }
}

/// What a client does after a link ended.
public enum ReconnectPolicy: Hashable, Sendable {
    /// Connect again after exponential back-off with full jitter.
    case backOff
    /// Connect to the named access point, in the given time slot.
    case redirect
    /// Get a new token, then connect.
    case newToken
    /// Don't connect before the app was upgraded.
    case upgrade
    /// Don't connect by itself.
    case stop
}

/// Why a publish or a request was refused.
public struct RefusalCode: RawRepresentable, Hashable, Sendable {
    /// The number on the wire; 1 or more.
    public let rawValue: UInt32

    /// Wraps a number, known or not.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `after` names an ID that the ledger does not hold: send again from the one behind `lastID`.
    public static let outOfOrder = RefusalCode(rawValue: 1)
    /// The ID was used with another tag, or in another channel: take a new producer.
    public static let idReused = RefusalCode(rawValue: 2)
    /// The ID is old and its acknowledgement is forgotten: it is unknown whether it was entered, and it never will be.
    public static let outcomeUnknown = RefusalCode(rawValue: 3)
    /// No such channel, or not a member of it: the two are not told apart.
    public static let unknownChannel = RefusalCode(rawValue: 4)
    /// The token, the room's settings or the app's own decision does not allow it.
    public static let forbidden = RefusalCode(rawValue: 5)
    /// The payload is over the limit.
    public static let payloadTooLarge = RefusalCode(rawValue: 6)
    /// The store has no room; worth another try.
    public static let storageFull = RefusalCode(rawValue: 7)
    /// Too much at once; worth another try.
    public static let overloaded = RefusalCode(rawValue: 8)
    /// The message's time to live was over before it was entered.
    public static let expired = RefusalCode(rawValue: 9)
    /// A recipient that can't be: any in a room or a broadcast, none or oneself in a request; or no member of a room who is to get a
    /// role.
    public static let unknownRecipient = RefusalCode(rawValue: 10)
    /// The ID was 0, or `after` was not below it.
    public static let invalidID = RefusalCode(rawValue: 11)
    /// The offset belongs to another life of the channel's log.
    public static let epochChanged = RefusalCode(rawValue: 12)
    /// A place that is not in the channel's log, or a number of entries outside the limits.
    public static let invalidRange = RefusalCode(rawValue: 13)
    /// The room has as many members as it may have.
    public static let roomFull = RefusalCode(rawValue: 14)
    /// The user is in as many rooms as one may be, or the tenant has as many channels to all as it may have.
    public static let limitReached = RefusalCode(rawValue: 15)
    /// The entry that it names isn't there for this user: of another epoch, trimmed, expired, retracted, or not readable.
    public static let unknownTarget = RefusalCode(rawValue: 16)
    /// The entry that it names is there, and can't be named so: another kind, author or conversation.
    public static let invalidTarget = RefusalCode(rawValue: 17)
    /// The user blocked the recipient.
    public static let blocked = RefusalCode(rawValue: 18)
    /// There are as many of these as there may be: edits of one message, conversations with settings of one user.
    public static let tooMany = RefusalCode(rawValue: 19)

    /// More users than a session may be told of.
    public static let tooManySubscriptions = RefusalCode(rawValue: 23)

    /// The rest of a payload that began did not come.
    public static let incomplete = RefusalCode(rawValue: 20)

    /// Whether the same publish may be sent again.
    public var isTemporary: Bool { self == .storageFull || self == .overloaded || self == .outOfOrder }
}
