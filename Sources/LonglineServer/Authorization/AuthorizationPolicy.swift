public import LonglineSession
public import LonglineStore
public import LonglineWire

/// An app's own decision about what a device may do, beyond its token's scopes: asked for publishes into rooms and
/// to all, for direct messages, for joins and for changes of a room by an owner, once the scopes allow them.
///
/// Calls come from any task, several at a time, never for one question twice at once; the server caches answers
/// (``AuthorizationSettings``), so that a busy channel costs a call once in a while. What takes longer than the deadline, and what
/// throws, is answered by ``AuthorizationSettings/onFailure``.
public protocol AuthorizationPolicy: Sendable {
    /// Decides about one question.
    func decide(_ question: AuthorizationQuestion) async throws -> AuthorizationDecision
}

/// What a policy is asked: may this device do this?
public struct AuthorizationQuestion: Hashable, Sendable {
    /// ``ChannelAction/publish``, ``ChannelAction/join`` or ``ChannelAction/manage``.
    public var action: ChannelAction
    /// Who wants to.
    public var device: DeviceKey
    /// With which channel. For a direct message it is the recipient's inbox.
    public var channel: ChannelID
    /// What is to become of the room, and of whom in it, with ``ChannelAction/manage``.
    public var change: RoomAction?

    /// A question.
    public init(_ action: ChannelAction, by device: DeviceKey, in channel: ChannelID, change: RoomAction? = nil) {
        self.change = change
        self.action = action
        self.device = device
        self.channel = channel
    }
}

/// What a policy answers.
public struct AuthorizationDecision: Hashable, Sendable {
    /// Why it is refused, or nil when it is allowed: ``RefusalCode/forbidden``, or a code of the app's own, which clients take
    /// for final. ``RefusalCode/overloaded`` is for now. What only the service's ledger can say (``RefusalCode/outOfOrder``,
    /// ``RefusalCode/idReused``, ``RefusalCode/outcomeUnknown``, ``RefusalCode/invalidID``, ``RefusalCode/incomplete``) counts as
    /// ``RefusalCode/forbidden``.
    public var refusal: RefusalCode?
    /// How long the same question gets the same answer without being asked again; none for ``Duration/zero``.
    public var timeToLive: Duration

    /// A decision.
    public init(refusal: RefusalCode?, timeToLive: Duration) {
        self.refusal = refusal
        self.timeToLive = timeToLive
    }

    /// It is allowed.
    public static func allow(for timeToLive: Duration) -> AuthorizationDecision {
        AuthorizationDecision(refusal: nil, timeToLive: timeToLive)
    }

    /// It is refused.
    public static func deny(_ code: RefusalCode = .forbidden, for timeToLive: Duration) -> AuthorizationDecision {
        AuthorizationDecision(refusal: code, timeToLive: timeToLive)
    }
}

/// A policy, and how it is asked.
public struct AuthorizationSettings: Sendable {
    /// What counts when the policy throws, or does not answer in time.
    public enum FailureAnswer: Hashable, Sendable {
        /// Nothing is done without the policy's word: it is refused as ``RefusalCode/overloaded``, and the client tries again.
        case refuseForNow
        /// It is refused as ``RefusalCode/forbidden``, and the client gives up.
        case deny
        /// It is allowed.
        case allow
    }

    /// Who decides.
    public var policy: any AuthorizationPolicy
    /// How long a decision may take.
    public var deadline = Duration.seconds(2)
    /// What counts without a decision.
    public var onFailure = FailureAnswer.refuseForNow
    /// How long that counts, before the policy is asked again.
    public var failureTimeToLive = Duration.seconds(1)
    /// The longest that any decision is remembered, whatever it says.
    public var maximumTimeToLive = Duration.seconds(300)
    /// Decisions that are remembered, about; beyond, the oldest are forgotten.
    public var maximumCached = 100_000
    /// Questions that the policy works on at one time, of one user an eighth of them, or 4. Beyond: refused as
    /// ``RefusalCode/overloaded``.
    public var maximumInFlight = 256
    /// So many of one user: who asks about ever other channels leaves the others their place.
    var maximumInFlightPerUser: Int { max(4, maximumInFlight / 8) }

    /// A policy with the default settings.
    public init(_ policy: any AuthorizationPolicy) { self.policy = policy }
}
