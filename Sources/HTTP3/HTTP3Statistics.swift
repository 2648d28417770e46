internal import Synchronization

/// What a server or client counted since it was made, over all its connections.
public struct HTTP3Statistics: Sendable, Hashable {
    /// Connections that came to speak HTTP/3.
    public var connections: UInt64 = 0
    /// Connections that were closed because there were too many.
    public var surplusConnections: UInt64 = 0
    /// Requests whose header section came in (server) or left (client).
    public var requests: UInt64 = 0
    /// Of those, requests that came in 0-RTT packets, or left in them.
    public var earlyRequests: UInt64 = 0
    /// Requests that were answered with 425 Too Early.
    public var tooEarly: UInt64 = 0
    /// Responses whose last byte was written (server) or read (client).
    public var responses: UInt64 = 0
    /// Requests that were rejected unprocessed, with H3_REQUEST_REJECTED.
    public var rejected: UInt64 = 0
    /// Exchanges that either side gave up before they were complete.
    public var cancelled: UInt64 = 0
    /// Streams that ended because the peer's message was malformed or too large.
    public var malformed: UInt64 = 0
    /// Requests that were too slow.
    public var timeouts: UInt64 = 0
    /// Connections that ended because the peer broke a rule.
    public var protocolErrors: UInt64 = 0
    /// Bytes of bodies that were read.
    public var bodyBytesReceived: UInt64 = 0
    /// Bytes of bodies that were written.
    public var bodyBytesSent: UInt64 = 0

    /// All zero.
    public init() {}
}

/// Counts for all connections of a server or client, from every loop.
final class Meter: Sendable {
    enum Counter: Int, CaseIterable {
        case connections, surplusConnections, requests, earlyRequests, tooEarly, responses, rejected, cancelled,
            malformed, timeouts
        case protocolErrors, bodyBytesReceived, bodyBytesSent
    }

    private let connections = Atomic<UInt64>(0)
    private let surplusConnections = Atomic<UInt64>(0)
    private let requests = Atomic<UInt64>(0)
    private let earlyRequests = Atomic<UInt64>(0)
    private let tooEarly = Atomic<UInt64>(0)
    private let responses = Atomic<UInt64>(0)
    private let rejected = Atomic<UInt64>(0)
    private let cancelled = Atomic<UInt64>(0)
    private let malformed = Atomic<UInt64>(0)
    private let timeouts = Atomic<UInt64>(0)
    private let protocolErrors = Atomic<UInt64>(0)
    private let bodyBytesReceived = Atomic<UInt64>(0)
    private let bodyBytesSent = Atomic<UInt64>(0)

    func count(_ counter: Counter, by amount: Int = 1) {
        let amount = UInt64(amount)
        switch counter {
        case .connections: connections.add(amount, ordering: .relaxed)
        case .surplusConnections: surplusConnections.add(amount, ordering: .relaxed)
        case .requests: requests.add(amount, ordering: .relaxed)
        case .earlyRequests: earlyRequests.add(amount, ordering: .relaxed)
        case .tooEarly: tooEarly.add(amount, ordering: .relaxed)
        case .responses: responses.add(amount, ordering: .relaxed)
        case .rejected: rejected.add(amount, ordering: .relaxed)
        case .cancelled: cancelled.add(amount, ordering: .relaxed)
        case .malformed: malformed.add(amount, ordering: .relaxed)
        case .timeouts: timeouts.add(amount, ordering: .relaxed)
        case .protocolErrors: protocolErrors.add(amount, ordering: .relaxed)
        case .bodyBytesReceived: bodyBytesReceived.add(amount, ordering: .relaxed)
        case .bodyBytesSent: bodyBytesSent.add(amount, ordering: .relaxed)
        }
    }

    var statistics: HTTP3Statistics {
        var result = HTTP3Statistics()
        result.connections = connections.load(ordering: .relaxed)
        result.requests = requests.load(ordering: .relaxed)
        result.earlyRequests = earlyRequests.load(ordering: .relaxed)
        result.tooEarly = tooEarly.load(ordering: .relaxed)
        result.responses = responses.load(ordering: .relaxed)
        result.rejected = rejected.load(ordering: .relaxed)
        result.cancelled = cancelled.load(ordering: .relaxed)
        result.malformed = malformed.load(ordering: .relaxed)
        result.timeouts = timeouts.load(ordering: .relaxed)
        result.protocolErrors = protocolErrors.load(ordering: .relaxed)
        result.bodyBytesReceived = bodyBytesReceived.load(ordering: .relaxed)
        result.bodyBytesSent = bodyBytesSent.load(ordering: .relaxed)
        return result
    }
}
