import LonglineWire

/// How the last link ended, as far as the next one cares.
enum LinkEnd: Sendable {
    /// The service said why, in a CLOSE frame or in the transport's close.
    case closed(Close)
    /// The link never came up: name not found, handshake failed, or the time was over.
    case failed(ClientError)
    /// There is nowhere to connect to: the control layer gave no answer, and asked to be left alone for so long.
    case unlocated(ClientError, retryAfter: Duration)
    /// The link was lost without a word: idle timeout, stateless reset.
    case lost(String)
    /// This device's own network changed, so nobody else comes back at the same time.
    case pathGone(String)
    /// The session was up and nothing came any more: this device's network, a firewall that lost the flow, or a dead node.
    case unanswered(String)
    /// The app leaves unread what came, and no more may come before it reads.
    case unread(String)
    /// The outbox took a new producer, and needs a new link to say so.
    case renewed

    /// The same for a program: why there is no connection.
    var cause: ClientError {
        switch self {
        case .failed(let error), .unlocated(let error, _): error
        case .closed(let close): ClientError(closedBy: close)
        case .lost, .pathGone, .unanswered, .unread, .renewed: ClientError(.notConnected, message: reason)
        }
    }

    /// Whether a node said why.
    var isWordOfNode: Bool { if case .closed = self { true } else { false } }

    /// For logs, and for the states of a client that stops.
    var reason: String {
        switch self {
        case .closed(let close): close.reason.isEmpty ? "code \(close.code.rawValue)" : close.reason
        case .failed(let error), .unlocated(let error, _): error.description
        case .lost(let reason), .pathGone(let reason), .unanswered(let reason), .unread(let reason): reason
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
    /// The part of the delay that the service asked for: whatever else happens, the client comes no sooner.
    var floor: Duration = .zero
    /// The stored resume ticket is worth nothing any more.
    var dropTicket = false
    /// The control layer may know better by now where to go.
    var asksAnew = false
}

/// Decides after each link whether, when, where and with what credential the client connects again.
///
/// Access points are tried in order; back-off grows once a round. A redirect goes in front of the list for one attempt. Those of the
/// configuration follow one another without a pause. Those that the control layer ranked follow with back-off's jitter, since all
/// whose first node died have it in common; and one that sent the client away goes to the end. Reads no clock and no random source
/// of its own.
///
/// A session that ends early keeps its access point once, since every node restarts now and then. From the second in a row on, the
/// point counts as tried, as if none had come up: something may accept the client there that can't serve it. Those that sent the
/// client on count as tried with the one that they sent it to.
///
/// ```
///            opened                 up for resetAfter
///  trying ----------> up ------------------------------> round = 0
///    ^                 |
///    '---- ended ------'   round grows when the list was tried once, and with each end that keeps its point
/// ```
struct ReconnectPlan: Sendable {
    private(set) var policy: BackOffPolicy
    private var accessPoints: [AccessPoint]
    /// Whether the control layer ranked them.
    private var isRanked: Bool
    private let stopsOnRefusedToken: Bool
    private(set) var round = 0
    /// Where no session came up in this round, or none that lasted.
    private var tried: Set<AccessPoint> = []
    /// Ranked only: those that sent the client away, the last at the end.
    private var sentAway: [AccessPoint] = []
    /// Ranked only: where a session lasted, which goes first until the next answer.
    private var home: AccessPoint?
    private var redirect: AccessPoint?
    /// Those that sent the client on, since a session lasted or one was left as tried.
    private var redirectors: Set<AccessPoint> = []
    /// Sessions that ended before `resetAfter`, since one lasted.
    private var shortSessions = 0
    private var credentialRefusals = 0
    /// Losses of this device's own path that were answered at once, without a session that lasted in between.
    private var immediateReturns = 0

    static let maximumImmediateReturns = 3

    /// - Parameter accessPoints: none, while the control layer has not said any.
    init(
        policy: BackOffPolicy, accessPoints: [AccessPoint], isRanked: Bool = false, stopsOnRefusedToken: Bool = false
    ) {
        self.stopsOnRefusedToken = stopsOnRefusedToken
        self.policy = policy
        self.accessPoints = accessPoints
        self.isRanked = isRanked
    }

    /// Where the next attempt goes; nil: nobody knows.
    var target: AccessPoint? {
        if let redirect { return redirect }
        if let home, accessPoints.contains(home), isOpen(home) { return home }
        return accessPoints.first(where: isOpen) ?? sentAway.first { !tried.contains($0) && accessPoints.contains($0) }
            ?? accessPoints.first
    }

    /// Whether the next attempt goes where a node said.
    var isRedirected: Bool { redirect != nil }

    private func isOpen(_ point: AccessPoint) -> Bool { !tried.contains(point) && !sentAway.contains(point) }

    /// The control layer answered: its ranking counts from now on. What failed in this round stays behind.
    mutating func rank(_ points: [AccessPoint], policy: BackOffPolicy) {
        self.policy = policy
        isRanked = true
        home = nil
        accessPoints = points
        // None is left of the round: it was one, so that back-off goes on to grow.
        if points.allSatisfy(tried.contains) {
            tried = []
            round += 1
        }
    }

    /// The device is in another network, as it seems: what came to nothing in the one before says nothing about this one. What nodes
    /// said themselves still counts, and so do sessions that ended early: where addresses come and go all the time, an access point that
    /// accepts and can't serve would never be left.
    mutating func networkChanged() {
        round = 0
        tried = []
        immediateReturns = 0
    }

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
        let point = target
        if let uptime, uptime >= policy.resetAfter { lasted(at: point) }
        redirect = nil
        switch end {
        case .renewed:
            return NextStep(kind: .reconnect)
        case .pathGone:
            // It says nothing about the access point.
            immediateReturns += 1
            if immediateReturns <= Self.maximumImmediateReturns { return NextStep(kind: .reconnect) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .unanswered:
            immediateReturns += 1
            if countsAsTried(uptime) { return nextAccessPoint(after: point, uptime: uptime, random: &random) }
            if immediateReturns <= Self.maximumImmediateReturns { return NextStep(kind: .reconnect) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .lost, .failed:
            // A link that was up keeps its access point for the next attempt; one that never came up gives it up.
            if countsAsTried(uptime) { return nextAccessPoint(after: point, uptime: uptime, random: &random) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .unread:
            // Only a look whether the app has read, which tells the client itself: nobody was asked for anything.
            if uptime == nil { return NextStep(kind: .reconnect, delay: policy.maximum) }
            return NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        case .unlocated(_, let retryAfter):
            return NextStep(kind: .reconnect, delay: backOff(floor: retryAfter, random: &random))
        case .closed(let close):
            let sendsAway = isRanked && close.code.sendsElsewhere
            if sendsAway, let point {
                sentAway.removeAll { $0 == point }
                sentAway.append(point)
            }
            var step = closed(close, of: point, uptime: uptime, usedTicket: usedTicket, random: &random)
            if sendsAway { step.asksAnew = true }
            step.floor = Self.floor(close)
            return step
        }
    }

    /// A session was up for long enough to say that its access point is all right.
    private mutating func lasted(at point: AccessPoint?) {
        round = 0
        immediateReturns = 0
        shortSessions = 0
        redirectors = []
        guard isRanked else { return }
        tried = []
        sentAway = []
        home = point
    }

    /// Whether the end of a link gives its access point up for this round. Takes note of a session that ended early.
    private mutating func countsAsTried(_ uptime: Duration?) -> Bool {
        guard let uptime else { return true }
        guard uptime < policy.resetAfter else { return false }
        shortSessions += 1
        return shortSessions > 1
    }

    private mutating func closed(
        _ close: Close, of point: AccessPoint?, uptime: Duration?, usedTicket: Bool,
        random: inout some RandomNumberGenerator
    ) -> NextStep {
        let floor = Self.floor(close)
        switch close.code.policy {
        case .backOff:
            // A ranked one that was up and sends clients away has gone to the end already.
            let isBehind = uptime != nil && isRanked && close.code.sendsElsewhere
            let goesOn = countsAsTried(uptime) && !isBehind
            if goesOn && floor == .zero { return nextAccessPoint(after: point, uptime: uptime, random: &random) }
            return NextStep(kind: .reconnect, delay: backOff(floor: floor, random: &random))
        case .redirect: return redirected(close, by: point, uptime: uptime, random: &random)
        case .newToken:
            // A session that was up ended with its credential; only the next connect tells whether the token is to blame.
            if stopsOnRefusedToken && uptime == nil && !usedTicket {
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

    private mutating func redirected(
        _ close: Close, by point: AccessPoint?, uptime: Duration?, random: inout some RandomNumberGenerator
    ) -> NextStep {
        let floor = Self.floor(close)
        let isShort = uptime.map { $0 < policy.resetAfter } ?? true
        if isShort && uptime != nil { shortSessions += 1 }
        redirect = AccessPoint(close.accessPoint)
        // To where the client was sent on from already: nodes that send it to and fro are left together.
        if isShort, let next = redirect, redirectors.contains(next) {
            redirect = nil
            var step = nextAccessPoint(after: point, uptime: uptime, random: &random)
            step.delay += floor
            return step
        }
        if redirect != nil, let point { redirectors.insert(point) }
        // The service assigned the slot, so nothing is added to it; nodes that send a client on before it could do anything are
        // slowed by back-off.
        if redirect == nil || isShort {
            return NextStep(kind: .reconnect, delay: backOff(floor: floor, random: &random))
        }
        return NextStep(kind: .reconnect, delay: floor)
    }

    /// A day: a service that says more is taken to mean "later".
    private static let longestRetryAfter: Int64 = 86_400_000

    private static func floor(_ close: Close) -> Duration {
        .milliseconds(Int64(min(close.retryAfter, UInt64(longestRetryAfter))))
    }

    private mutating func nextAccessPoint(
        after point: AccessPoint?, uptime: Duration?, random: inout some RandomNumberGenerator
    ) -> NextStep {
        if let point { tried.insert(point) }
        tried.formUnion(redirectors)
        redirectors = []
        guard accessPoints.allSatisfy(tried.contains) else {
            // Sessions that were opened cost the service more than attempts that came to nothing.
            let pauses = isRanked || uptime != nil
            return NextStep(
                kind: .reconnect, delay: pauses ? policy.delay(attempt: round, using: &random) : .zero)
        }
        tried = []
        sentAway = []
        home = nil
        var step = NextStep(kind: .reconnect, delay: backOff(floor: .zero, random: &random))
        step.asksAnew = isRanked
        return step
    }

    /// What comes on top of a time that the service gave, so that those who were told the same don't come back at the same time.
    func spread(random: inout some RandomNumberGenerator) -> Duration { policy.delay(attempt: 0, using: &random) }

    private mutating func backOff(floor: Duration, random: inout some RandomNumberGenerator) -> Duration {
        defer { round += 1 }
        return policy.delay(attempt: round, floor: floor, using: &random)
    }
}

extension CloseCode {
    /// Whether a node says by it that another one serves better now.
    fileprivate var sendsElsewhere: Bool { self == .shuttingDown || self == .overloaded || policy == .redirect }
}
