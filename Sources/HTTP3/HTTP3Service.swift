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
    /// From so many connections on, who comes takes the place of one without a request; nil: any number may come.
    private let crowd: Int?
    /// Counts how often a connection was left without a request.
    private let turns = Atomic<UInt64>(0)
    private let state = Mutex(State())

    private struct Connection {
        let session: OnLoop<Session>
        let idle: IdleMark
        var hasPlace = false
    }

    private struct State {
        var connections: [ObjectIdentifier: Connection] = [:]
        /// How many of them have a place. Those whose handshake isn't complete have none: what bounds them is the transport.
        var taken = 0
        var isDraining = false
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        var nextWaiter = 0

        /// Looks at each: so it is only where few places are left.
        func takeLongestIdle() -> OnLoop<Session>? {
            var longest: (connection: Connection, since: UInt64)?
            for connection in connections.values {
                guard let since = connection.idle.since, since < longest?.since ?? .max else { continue }
                longest = (connection, since)
            }
            longest?.connection.idle.set(nil)
            return longest?.connection.session
        }
    }

    /// A service without sessions.
    public init(options: HTTP3ServerOptions = HTTP3ServerOptions()) {
        self.options = options
        crowd = options.connections.map { $0 < 8 ? .max : $0 - $0 / 8 }
    }

    /// What was counted so far.
    public var statistics: HTTP3Statistics { meter.statistics }

    /// - Returns: whether no place is left now.
    func add(_ session: Session) -> Bool {
        let reference = OnLoop(session, eventLoop: session.connection.eventLoop)
        let (isFull, isDraining) = state.withLock { state in
            state.connections[ObjectIdentifier(session)] = Connection(session: reference, idle: IdleMark())
            return (state.taken >= options.connections ?? .max, state.isDraining)
        }
        if isDraining { session.connection.eventLoop.execute { reference.perform { $0.drain() } } }
        return isFull
    }

    /// The handshake of a connection is complete: it takes a place, and where few are left, another gives way to it. Before, anybody may
    /// have made it up, with any address: that takes nobody's place, nor a look at each.
    /// - Returns: false: no place is left, and it has to end.
    func establish(_ session: Session) -> Bool {
        guard let most = options.connections, let crowd else { return true }
        let place = state.withLock { state -> (IdleMark, OnLoop<Session>?)? in
            let id = ObjectIdentifier(session)
            guard state.taken < most, let connection = state.connections[id] else { return nil }
            state.connections[id]?.hasPlace = true
            state.taken += 1
            return (connection.idle, state.taken > crowd ? state.takeLongestIdle() : nil)
        }
        guard let (idle, leaves) = place else { return false }
        // Only now it can give way itself. A request may have come before (0-RTT).
        idle.set(session.working > 0 ? nil : nextTurn())
        session.onWork = { [self] isWorking in idle.set(isWorking ? nil : nextTurn()) }
        // Not within the events of another connection.
        if let leaves { leaves.eventLoop.execute { leaves.perform { $0.giveWay() } } }
        return true
    }

    private func nextTurn() -> UInt64 { turns.add(1, ordering: .relaxed).newValue }

    /// The connection is over.
    func remove(_ session: Session) {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            if state.connections.removeValue(forKey: ObjectIdentifier(session))?.hasPlace == true { state.taken -= 1 }
            guard state.connections.isEmpty else { return [] }
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
            return state.connections.values.map(\.session)
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
                    if state.connections.isEmpty || Task.isCancelled { return true }
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

/// Since when nothing has been done for a connection: set on its loop, and read by who looks for a place.
final class IdleMark: Sendable {
    /// A turn of its service; 0: a request is worked on, its handshake isn't complete, or it is about to end.
    private let turn = Atomic<UInt64>(0)

    var since: UInt64? {
        let turn = turn.load(ordering: .relaxed)
        return turn == 0 ? nil : turn
    }

    func set(_ turn: UInt64?) { self.turn.store(turn ?? 0, ordering: .relaxed) }
}
