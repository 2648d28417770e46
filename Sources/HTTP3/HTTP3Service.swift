internal import NIOCore
internal import QUICTransport
internal import Synchronization

/// The sessions of a server: counts over all of them, and drains them together. One is enough for any number of ports.
public final class HTTP3Service: Sendable {
    /// The ALPN protocol (RFC 9114 section 3.1).
    public static let applicationProtocol = "h3"

    /// How requests are served.
    public let options: HTTP3ServerOptions
    let meter = Meter()
    private let state = Mutex(State())

    private struct State {
        var sessions: [ObjectIdentifier: OnLoop<Session>] = [:]
        var isDraining = false
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter = 0
    }

    /// A service without sessions.
    public init(options: HTTP3ServerOptions = HTTP3ServerOptions()) { self.options = options }

    /// What was counted so far.
    public var statistics: HTTP3Statistics { meter.statistics }

    /// Whether no more connections are taken.
    var isFull: Bool {
        guard let limit = options.connections else { return false }
        return state.withLock { $0.sessions.count } >= limit
    }

    func add(_ session: Session) {
        let reference = OnLoop(session, eventLoop: session.connection.eventLoop)
        let isDraining = state.withLock { state in
            state.sessions[ObjectIdentifier(session)] = reference
            return state.isDraining
        }
        if isDraining { session.connection.eventLoop.execute { reference.perform { $0.drain() } } }
    }

    /// The connection is over.
    func remove(_ session: Session) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.sessions[ObjectIdentifier(session)] = nil
            guard state.sessions.isEmpty else { return [] }
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Drains every session, present and future: GOAWAY, requests under way finish, the connection closes with H3_NO_ERROR. Returns
    /// when the last session has ended, or when the time is over or the task is cancelled; the sessions that are left go on. A server
    /// stops accepting first.
    /// - Parameter grace: how long to wait at most.
    public func drain(grace: Duration) async {
        let sessions = state.withLock { state in
            state.isDraining = true
            return Array(state.sessions.values)
        }
        for session in sessions { session.perform { $0.drain() } }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.drained() }
            group.addTask { try? await Task.sleep(for: grace) }
            await group.next()
            group.cancelAll()
        }
    }

    /// Waits until no session is left, or until the task is cancelled.
    private func drained() async {
        let number = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.sessions.isEmpty || Task.isCancelled { return true }
                    state.waiters[number] = continuation
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            state.withLock { $0.waiters.removeValue(forKey: number) }?.resume()
        }
    }
}
