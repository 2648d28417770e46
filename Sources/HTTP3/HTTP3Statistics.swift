internal import Synchronization

/// What a server or client counted since it was made, over all its connections.
public struct HTTP3Statistics: Sendable, Hashable {
    /// Connections that came to speak HTTP/3, once their handshake was complete.
    public var connections: UInt64 = 0
    /// Connections that were closed then because there were too many; they count here alone.
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

        /// Where it is in the statistics: none can be counted and not be told.
        var field: WritableKeyPath<HTTP3Statistics, UInt64> {
            switch self {
            case .connections: \.connections
            case .surplusConnections: \.surplusConnections
            case .requests: \.requests
            case .earlyRequests: \.earlyRequests
            case .tooEarly: \.tooEarly
            case .responses: \.responses
            case .rejected: \.rejected
            case .cancelled: \.cancelled
            case .malformed: \.malformed
            case .timeouts: \.timeouts
            case .protocolErrors: \.protocolErrors
            case .bodyBytesReceived: \.bodyBytesReceived
            case .bodyBytesSent: \.bodyBytesSent
            }
        }
    }

    private let counts = InlineArray<13, Atomic<UInt64>> { _ in Atomic(0) }

    init() { assert(counts.count == Counter.allCases.count, "each counter has a place") }

    func count(_ counter: Counter, by amount: Int = 1) {
        counts[counter.rawValue].add(UInt64(amount), ordering: .relaxed)
    }

    var statistics: HTTP3Statistics {
        var result = HTTP3Statistics()
        for counter in Counter.allCases {
            result[keyPath: counter.field] = counts[counter.rawValue].load(ordering: .relaxed)
        }
        return result
    }
}
