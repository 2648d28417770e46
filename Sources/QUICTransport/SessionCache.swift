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
    /// What is known of a server's address token, which is forgotten: everybody on the way can read a token, and one that is used
    /// twice tells them that the same client is back (RFC 9000 section 8.1.3).
    ///
    /// Without an implementation of its own a cache is asked for the session, told to remove it, and given the ticket again. Two
    /// connections at the same time may get the same token by that.
    func takeAddressToken(for key: SessionCacheKey) -> [UInt8]?
    /// Keeps the latest ticket.
    func store(ticket: SessionTicket, for key: SessionCacheKey)
    /// Keeps the latest token.
    func store(addressToken: [UInt8], for key: SessionCacheKey)
    /// Forgets a server. The client does this when TLS failed with the ticket, or two attempts with it in a row had no answer and the
    /// next one, without it, had; and stores the token again.
    func remove(_ key: SessionCacheKey)
}

extension SessionCache {
    public func takeAddressToken(for key: SessionCacheKey) -> [UInt8]? {
        guard let known = session(for: key), let token = known.addressToken else { return nil }
        remove(key)
        if let ticket = known.ticket { store(ticket: ticket, for: key) }
        return token
    }
}

/// A session cache in memory, for at most `capacity` servers; the one stored longest ago goes first.
public final class InMemorySessionCache: SessionCache {
    private struct State {
        var sessions: [SessionCacheKey: CachedSession] = [:]
        /// The one stored longest ago first.
        var order: [SessionCacheKey] = []
    }

    private let capacity: Int
    private let state = Mutex(State())

    /// An empty cache. One for no servers keeps nothing.
    public init(capacity: Int = 256) { self.capacity = capacity }

    public func session(for key: SessionCacheKey) -> CachedSession? {
        state.withLock { $0.sessions[key] }
    }

    public func takeAddressToken(for key: SessionCacheKey) -> [UInt8]? {
        state.withLock { state in
            defer { state.sessions[key]?.addressToken = nil }
            return state.sessions[key]?.addressToken
        }
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
        guard capacity > 0 else { return }
        state.withLock { state in
            if let place = state.order.firstIndex(of: key) {
                state.order.remove(at: place)
            } else if state.order.count >= capacity {
                state.sessions[state.order.removeFirst()] = nil
            }
            state.order.append(key)
            change(&state.sessions[key, default: CachedSession()])
        }
    }
}
