public import QUICEngine
internal import Synchronization

/// Names the server that a cached session belongs to.
public struct SessionCacheKey: Hashable, Sendable {
    /// The name that was verified (SNI).
    public let serverName: String
    /// The port.
    public let port: Int
    /// The first protocol offered.
    public let applicationProtocol: String

    /// A key.
    public init(serverName: String, port: Int, applicationProtocol: String) {
        self.serverName = serverName
        self.port = port
        self.applicationProtocol = applicationProtocol
    }
}

/// What a client keeps of an earlier connection to return faster.
public struct CachedSession: Sendable {
    /// For 0-RTT and resumption.
    public var ticket: SessionTicket?
    /// Spares the address check.
    public var addressToken: [UInt8]?

    /// A cached session.
    public init(ticket: SessionTicket? = nil, addressToken: [UInt8]? = nil) {
        self.ticket = ticket
        self.addressToken = addressToken
    }
}

/// Keeps tickets and address tokens between connections. Called on event loops: implementations don't block.
public protocol SessionCache: Sendable {
    /// What is known of a server.
    func session(for key: SessionCacheKey) -> CachedSession?
    /// Keeps the latest ticket.
    func store(ticket: SessionTicket, for key: SessionCacheKey)
    /// Keeps the latest token.
    func store(addressToken: [UInt8], for key: SessionCacheKey)
    /// Forgets a server. The client does this when TLS failed with the ticket, and stores the token again.
    func remove(_ key: SessionCacheKey)
}

/// A session cache in memory, for at most `capacity` servers; the one stored longest ago goes first.
public final class InMemorySessionCache: SessionCache {
    private struct State {
        var sessions: [SessionCacheKey: CachedSession] = [:]
        var order: [SessionCacheKey] = []
    }

    private let capacity: Int
    private let state = Mutex(State())

    /// An empty cache.
    public init(capacity: Int = 256) {
        precondition(capacity > 0, "a cache holds at least one session")
        self.capacity = capacity
    }

    public func session(for key: SessionCacheKey) -> CachedSession? {
        state.withLock { $0.sessions[key] }
    }

    public func store(ticket: SessionTicket, for key: SessionCacheKey) {
        update(key) { $0.ticket = ticket }
    }

    public func store(addressToken: [UInt8], for key: SessionCacheKey) {
        update(key) { $0.addressToken = addressToken }
    }

    public func remove(_ key: SessionCacheKey) {
        state.withLock { state in
            state.sessions[key] = nil
            state.order.removeAll { $0 == key }
        }
    }

    private func update(_ key: SessionCacheKey, _ change: (inout CachedSession) -> Void) {
        state.withLock { state in
            if state.sessions[key] == nil {
                if state.order.count >= capacity {
                    state.sessions[state.order.removeFirst()] = nil
                }
                state.order.append(key)
            }
            change(&state.sessions[key, default: CachedSession()])
        }
    }
}
