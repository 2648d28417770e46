import LonglineWire
import NIOCore
import Synchronization

/// What the app asks of the connection. What was called last holds, whatever each call waits for.
extension ClientCore {
    /// - Parameter known: how many disconnections there were when the app called, which has begun the attempts; nil: it calls now.
    func connect(since known: UInt64? = nil) async throws {
        if known == nil { try Task.checkCancellation() }
        let (asked, wish) = try turns.withLock { turns in
            if let error = turns.disconnection(since: known) { throw error }
            if known == nil { wantConnection(turns) }
            return (turns.disconnections, sharing?.wish)
        }
        // Who cancels this call ends the wait only.
        if known == nil, sharing == nil { return try await connectAlone(after: asked) }
        if known == nil { keepContending() }
        while true {
            let handle = try await ownedHandle(since: asked)
            do {
                return try await handle.call(ignoring: ()) { [self] driver, done in
                    if let error = disconnection(since: asked) {
                        done(.failure(error))
                        return 0
                    }
                    return driver.connect(after: asked, wish: wish) { error in
                        done(error.map { .failure($0) } ?? .success(()))
                    }
                } cancel: { driver, id in
                    driver.cancelConnectWaiter(id)
                }
            } catch let error as ClientError where error.code == .ownershipLost {
                // Another process was faster: wait for it to end.
                continue
            }
        }
    }

    /// Connects with an outbox of its own. The attempts begin also where the caller stops to wait before the storage is open.
    private func connectAlone(after asked: UInt64) async throws {
        let (connected, waiter) = (Outcome<Void>(), Outcome<(handle: DriverHandle, number: UInt64)>())
        Task {
            do {
                let handle = try await handle(since: asked)
                handle.run { [self] driver in
                    var number: UInt64 = 0
                    if let error = disconnection(since: asked) {
                        connected.end(error)
                    } else {
                        number = driver.connect(after: asked) { connected.end($0) }
                    }
                    waiter.resolve(.success((handle: handle, number: number)))
                }
            } catch {
                connected.end(error)
                waiter.resolve(.failure(error))
            }
        }
        do { try await connected.value() } catch let error as CancellationError {
            Task {
                guard let known = try? await waiter.value() else { return }
                known.handle.run { $0.cancelConnectWaiter(known.number) }
            }
            throw error
        }
    }

    /// As ``connect()``, for so long. The wait ends then, not the client's attempts.
    func connect(within limit: Duration) async throws {
        try Task.checkCancellation()
        let asked = turns.withLock { $0.disconnections }
        try await Outcome.bounded(
            by: TimeAmount(limit), on: loop, timedOut: { [self] in notConnected(in: limit) },
            { [self] in
                // The attempts begin, also where opening the storage takes longer than the caller waits.
                try await start(since: asked)
                try await connect(since: asked)
            })
    }

    private func notConnected(in limit: Duration) -> ClientError {
        if case .standby = outlets.states.latest { return Self.isOwnedByAnother }
        return outlets.lastFailure.error ?? ClientError(.timedOut, message: "no connection in \(limit)")
    }

    /// - Parameter known: how many disconnections there were when the app called; nil: it calls now.
    func start(since known: UInt64? = nil) async throws {
        let asked = known ?? turns.withLock { $0.disconnections }
        // It has begun when this returns: who reads the messages from then on is not told of the end that a disconnection was.
        guard sharing != nil else { return try await begin(after: asked) }
        // Who waits for its turn is told by the states.
        do { _ = try await handle(since: asked) } catch let error as ClientError where error.isOfAnotherOwner {}
        try turns.withLock { turns in
            if let error = turns.disconnection(since: asked) { throw error }
            wantConnection(turns)
        }
        keepContending()
    }

    /// Has a client with an outbox of its own begin to connect.
    private func begin(after asked: UInt64) async throws {
        try await handle(since: asked).call(ignoring: ()) { [self] driver, done in
            let error = disconnection(since: asked)
            defer { done(error.map { .failure($0) } ?? .success(())) }
            return error == nil ? driver.connect(after: asked, nil) : 0
        }
    }

    private func disconnection(since disconnections: UInt64) -> ClientError? {
        turns.withLock { $0.disconnection(since: disconnections) }
    }

    /// The app wants a shared outbox's client to be connected, and reads what comes then. With the lock of the turns, as a
    /// disconnection that is later ends all of it.
    private func wantConnection(_ turns: DriverTurns) {
        guard let sharing, turns.closed == nil else { return }
        sharing.wantsConnection(true)
        outlets.messages.reopen()
        outlets.requests.reopen()
    }

    func disconnect() async {
        let (number, isOpen) = turns.withLock { turns in
            turns.disconnect()
            sharing?.wantsConnection(false)
            // Nobody else would tell who reads, and a driver that is made later has them go on.
            if sharing == nil, !turns.isOpen, turns.closed == nil {
                outlets.messages.finish()
                outlets.requests.finish()
            }
            return (turns.disconnections, turns.isOpen)
        }
        // A driver that is there bounds the time by itself.
        if sharing == nil, isOpen { return await endConnection(number) }
        // The connection's end has most of the time. What holds up the opening, a store of the app's that gives no answer, gets no more.
        let patience = TimeAmount(configuration.closeTimeout * 5 / 4)
        guard let sharing else { return await wait(for: Task { await endConnection(number) }, atMost: patience) }
        let ending = Task {
            await endConnection(number)
            await yieldOwnership(.disconnected, unlessWanted: true)
            finishDisconnecting(sharing)
        }
        // A file that another process has locked is given up when it can be; nobody waits for that.
        await wait(for: ending, atMost: patience)
    }

    /// Tells the app that it is disconnected, where no driver did: in standby there is none.
    private func finishDisconnecting(_ sharing: SharingState) {
        turns.withLock { turns in
            guard !sharing.wantsConnection, turns.closed == nil else { return }
            outlets.messages.finish()
            outlets.requests.finish()
            guard let state = outlets.states.latest else { return }
            if case .standby = state { outlets.states.send(.disconnected) }
            if state.stopError != nil { outlets.states.send(.disconnected) }
        }
    }

    private func endConnection(_ number: UInt64) async {
        guard let handle = try? await existing() else { return }
        await withCheckedContinuation { continuation in
            handle.run { $0.disconnect(number) { continuation.resume() } }
        }
    }

    /// Waits for a task that goes on in any case.
    func wait(for task: Task<Void, Never>, atMost time: TimeAmount) async {
        let over = Outcome<Void>()
        let timer = loop.scheduleTask(in: time) { over.resolve(.success(())) }
        // Not by the caller's task, which may be cancelled.
        let waiting = Task { try? await over.value() }
        Task {
            await task.value
            over.resolve(.success(()))
        }
        await waiting.value
        timer.cancel()
    }
}
