import LonglineWire

/// How the last link ended, as far as the next one cares.
enum LinkEnd: Sendable {
    /// The service said why, in a CLOSE frame or in the transport's close.
    case closed(Close)
    /// The link never came up: name not found, handshake failed, or the time was over.
    case failed(ClientError)
    /// The link was lost without a word: idle timeout, stateless reset.
    case lost(String)
    /// This device's own network changed, so nobody else comes back at the same time.
    case pathGone(String)
    /// The outbox took a new producer, and needs a new link to say so.
    case renewed

    /// For logs and for the states that an app shows.
    var reason: String {
        switch self {
        case .closed(let close): close.reason.isEmpty ? "code \(close.code.rawValue)" : close.reason
        case .failed(let error): error.description
        case .lost(let reason), .pathGone(let reason): reason
        case .renewed: "the outbox takes a new producer"
        }
    }
}

/// What the client does next.
struct NextStep: Sendable {
    /// The kinds of next step.
    enum Kind: Equatable, Sendable {
        /// Connect to the access point of the plan, after `delay`.
        case reconnect
        /// Stay away; the app has to act.
        case stop(CloseCode)
    }

    var kind: Kind
    var delay: Duration = .zero
    /// The stored resume ticket is worth nothing any more.
    var dropTicket = false
}

/// Decides after each link whether, when, where and with what credential the client connects again.
///
/// Access points are tried in order without a pause between them; back-off grows once a round. A redirect goes in
/// front of the list for one attempt. Reads no clock and no random source of its own.
///
/// ```
///            opened                 up for resetAfter
///  trying ----------> up ------------------------------> round = 0
///    ^                 |
///    '---- ended ------'   round grows when the list was tried once
/// ```
struct ReconnectPlan: Sendable {
    private let policy: BackOffPolicy
    private let accessPoints: [AccessPoint]
    private let stopsOnRefusedToken: Bool
    private(set) var round = 0
    private var index = 0
    private var redirect: AccessPoint?
    private var credentialRefusals = 0
    /// Losses of this device's own path that were answered at once, without a session that lasted in between.
    private var immediateReturns = 0

    static let maximumImmediateReturns = 3

    init(policy: BackOffPolicy, accessPoints: [AccessPoint], stopsOnRefusedToken: Bool = false) {
        precondition(!accessPoints.isEmpty, "configuration was checked")
        self.stopsOnRefusedToken = stopsOnRefusedToken
        self.policy = policy
        self.accessPoints = accessPoints
    }

    /// Where the next attempt goes.
    var target: AccessPoint { redirect ?? accessPoints[index % accessPoints.count] }

    /// Takes note that a session was accepted.
    mutating func connected() {
        credentialRefusals = 0
    }

    /// Decides what follows the end of a link.
    /// - Parameters:
    ///   - uptime: how long the session was up, or nil when it never was.
    ///   - usedTicket: whether the attempt's credential was a resume ticket.
    mutating func ended(
        _ end: LinkEnd, uptime: Duration?, usedTicket: Bool, random: inout some RandomNumberGenerator
    ) -> NextStep {
        if let uptime, uptime >= policy.resetAfter {
            round = 0
            immediateReturns = 0
        }
        let wasRedirected = redirect != nil
        redirect = nil
        switch end {
        case .renewed:
            return NextStep(kind: .reconnect)
        case .pathGone:
            immediateReturns += 1
            if immediateReturns <= Self.maximumImmediateReturns { return NextStep(kind: .reconnect) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .lost, .failed:
            // A link that was up keeps its access point for the next attempt; one that never came up gives it up.
            if uptime == nil && !wasRedirected { return nextAccessPoint(random: &random) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .closed(let close):
            return closed(close, neverUp: uptime == nil, usedTicket: usedTicket, random: &random)
        }
    }

    private mutating func closed(
        _ close: Close, neverUp: Bool, usedTicket: Bool, random: inout some RandomNumberGenerator
    ) -> NextStep {
        let floor = Duration.milliseconds(Int64(min(close.retryAfter, UInt64(Self.longestRetryAfter))))
        switch close.code.policy {
        case .backOff:
            if neverUp && floor == .zero { return nextAccessPoint(random: &random) }
            return NextStep(kind: .reconnect, delay: backOff(floor: floor, random: &random))
        case .redirect:
            redirect = AccessPoint(close.accessPoint)
            // The service assigned the slot, so nothing is added to it; two nodes that send a client to and fro
            // are slowed by back-off.
            if redirect == nil || neverUp {
                return NextStep(kind: .reconnect, delay: backOff(floor: floor, random: &random))
            }
            return NextStep(kind: .reconnect, delay: floor)
        case .newToken:
            // A session that was up ended with its credential; only the next connect tells whether the token is to blame.
            if stopsOnRefusedToken && neverUp && !usedTicket {
                return NextStep(kind: .stop(close.code), dropTicket: true)
            }
            credentialRefusals += 1
            // A refused ticket costs nothing but a round trip. A fresh token that is refused is the token
            // provider's or the clock's fault: asking again at once would only make it worse.
            if usedTicket || credentialRefusals == 1 {
                return NextStep(kind: .reconnect, delay: floor, dropTicket: true)
            }
            return NextStep(kind: .reconnect, delay: backOff(floor: floor, random: &random), dropTicket: true)
        case .upgrade, .stop:
            return NextStep(kind: .stop(close.code))
        }
    }

    /// A day: a service that says more is taken to mean "later".
    private static let longestRetryAfter: Int64 = 86_400_000

    private mutating func nextAccessPoint(random: inout some RandomNumberGenerator) -> NextStep {
        index = (index + 1) % accessPoints.count
        if index != 0 { return NextStep(kind: .reconnect) }
        return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
    }

    private mutating func backOff(floor: Duration, random: inout some RandomNumberGenerator) -> Duration {
        defer { round += 1 }
        return policy.delay(attempt: round, floor: floor, using: &random)
    }
}
