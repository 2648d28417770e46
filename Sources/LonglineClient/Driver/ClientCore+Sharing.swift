import LonglineWire
import NIOCore
import Synchronization

/// Who owns a shared outbox.
extension ClientCore {
    /// - Returns: which turn of this process it is; nil for an outbox of this client's own.
    /// - Throws: ``ClientError/Code/storageInUse`` while another process has it, or another client of this one.
    func takeOwnership() async throws -> Int64? {
        guard let sharing else { return nil }
        guard try await sharing.storage.contend() else { throw Self.isOwnedByAnother }
        guard let ownership = sharing.storage.generation else { throw ConnectionDriver.retired }
        sharing.took(ownership)
        return ownership
    }

    /// Gives up what an opening took of which nothing came, where the client has ended meanwhile: nobody else would.
    func giveUpOwnership() async {
        guard let sharing, let closed else { return }
        // A logout needs it until all is wiped. It gives it up by itself, and the opening may have taken it once more behind that.
        if closed.code == .loggedOut { try? await wipe() }
        await sharing.giveUp()
    }

    static var isOwnedByAnother: ClientError {
        ClientError(
            .storageInUse, message: "another process of the app, or another client of it, owns the outbox",
            advice: "messages that are sent here are taken over by it; connect() waits for it to end")
    }

    /// The driver, once this process owns the outbox.
    /// - Parameter disconnections: as for ``handle(since:)``.
    func ownedHandle(since disconnections: UInt64? = nil) async throws -> DriverHandle {
        guard let sharing else { return try await handleUnlessCancelled(since: disconnections) }
        while true {
            do { return try await handleUnlessCancelled(since: disconnections) } catch let error as ClientError
                where error.isOfAnotherOwner
            {
                // With the lock of the turns: a disconnection that is later tells its own state.
                try turns.withLock { _ in
                    guard sharing.wantsConnection else {
                        throw ClientError(.disconnected, message: "the client was disconnected")
                    }
                    if case .standby = outlets.states.latest { return }
                    outlets.states.send(.standby)
                }
                try await Task.sleep(for: sharing.storage.pollInterval)
            }
        }
    }

    /// Connects as soon as this process owns the outbox, for as long as the app wants it.
    /// - Parameter goesOn: whether a driver has just ended, and the next one does what it did.
    func keepContending(goesOn: Bool = false) {
        guard let sharing else { return }
        let interval = sharing.storage.pollInterval
        sharing.contend(goesOn: goesOn) { [weak self] goesOn in
            var pause = LookInterval(interval)
            var isTold = false
            while !Task.isCancelled {
                do {
                    guard let self else { return }
                    return try await ownedHandle().run { driver in
                        // The app may have disconnected meanwhile, and a service that said "stop" waits for the app.
                        guard let (asked, wish) = self.wishToConnect() else { return }
                        if goesOn, case .stopped = driver.phase { return }
                        _ = driver.connect(after: asked, wish: wish, nil)
                    }
                } catch {
                    // The client has ended, or neither the file can be read now nor what the app keeps itself.
                    guard !Task.isCancelled, self?.closed == nil else { return }
                    if !isTold {
                        isTold = true
                        let told = ClientError(.storage, message: "what the app keeps can't be read", cause: error)
                        self?.outlets.notices.send(.storageFailed(error as? ClientError ?? told))
                    }
                    try? await Task.sleep(for: pause.next(isNews: false))
                }
            }
        }
    }

    /// How many disconnections there were before the app's wish to be connected, and its number; nil: it has none.
    private func wishToConnect() -> (disconnections: UInt64, number: UInt64)? {
        turns.withLock { turns -> (disconnections: UInt64, number: UInt64)? in
            guard let sharing, sharing.wantsConnection else { return nil }
            return (turns.disconnections, sharing.wish)
        }
    }

    /// Takes messages that were put in for the owner into its outbox, as far as there is room.
    /// - Returns: whether nothing of what this process had put in before waits any more.
    func takeIn(on handle: DriverHandle) async throws -> Bool {
        guard let sharing else { return true }
        return try await sharing.takeIn { try await Self.takeIn(sharing, on: handle) }
    }

    private static func takesSubmissions(_ handle: DriverHandle) async -> Bool {
        await withCheckedContinuation { continuation in
            handle.run { continuation.resume(returning: $0.takesSubmissions) }
        }
    }

    private static func takeIn(_ sharing: SharingState, on handle: DriverHandle) async throws -> Bool {
        // Before they are claimed: who sent them may still take them back.
        guard await takesSubmissions(handle) else { return false }
        while true {
            let submitted = sharing.submitted
            let claim = try await sharing.storage.claim()
            let outcome = await withCheckedContinuation { continuation in
                handle.run { $0.adopt(claim.submissions) { continuation.resume(returning: $0) } }
            }
            guard outcome else { return false }
            // What follows them shows once they are out of the way.
            if claim.isAll {
                sharing.tookIn(submitted)
                return true
            }
        }
    }

    /// Looks for what other processes put in, and whether one of them wants to be the owner.
    func watchOwnership(of handle: DriverHandle) {
        guard let sharing, let ownership = handle.ownership else { return }
        sharing.takeInAgain()
        handle.run { driver in
            // Not before the opening is over: a logout has a driver dropped until then, and who follows by it would wait for ever.
            driver.takeOverFollowed()
            driver.onOwnershipLost = { [weak self] in Task { await self?.loseOwnership(ownership) } }
            driver.onReplaced = { [weak self] goOn in
                Task {
                    // Another process of the app may have taken over while this one slept.
                    if case .lost = try? await sharing.storage.news() { await self?.loseOwnership(ownership) }
                    goOn()
                }
            }
            driver.drainConfirmations()
        }
        let storage = sharing.storage
        sharing.watch { [weak self] in
            var version: Int?
            var isWaiting = false
            var pause = LookInterval(storage.pollInterval)
            while !Task.isCancelled {
                // Without a connection, or a user, nobody waits for what it finds, but an owner has to answer in time.
                let longest = sharing.wantsConnection ? sharing.looks.mode.longestLook : LookInterval.longest
                var isNews = false
                if let now = try? await storage.version(), now != version || isWaiting,
                    let news = try? await storage.news()
                {
                    version = now
                    isWaiting = false
                    isNews = true
                    switch news {
                    case .nothing: break
                    case .lost:
                        await self?.loseOwnership(ownership)
                        return
                    case .challenged:
                        guard let self, self.sharing?.wantsConnection == true else {
                            // Who wants to connect goes first.
                            await self?.yieldOwnership(.disconnected)
                            return
                        }
                        isWaiting = true
                        try? await storage.answerChallenge()
                    case .submissions:
                        guard await Self.takesSubmissions(handle) else {
                            isNews = false
                            break
                        }
                        // Looked at again until all are in: the outbox may be full now.
                        isWaiting = true
                        _ = try? await self?.takeIn(on: handle)
                    }
                }
                let wait = pause.next(isNews: isNews, longest: longest)
                await sharing.looks.wait(for: min(wait, storage.takeOverAfter / 2))
            }
        }
    }

    /// Another process took over: it goes on with what is durable, and this one waits for its turn. Returns when the driver of that
    /// turn is retired, whoever did it.
    private func loseOwnership(_ ownership: Int64) async {
        guard let sharing else { return }
        let task = turns.withLock { $0.task }
        if let task, let handle = try? await task.value, handle.ownership == ownership {
            let isEnded = turns.withLock { turns in
                guard turns.task == task else { return false }
                _ = turns.end { driver in
                    await self.retire(driver, sharing.wantsConnection ? .standby : .disconnected)
                    sharing.storage.forgetOwnership(ownership)
                }
                return true
            }
            if isEnded { keepContending(goesOn: true) }
        }
        await turns.withLock { $0.ending }?.value
    }

    /// Gives the outbox to whoever wants it.
    /// - Parameter unlessWanted: keeps it where the app wants to be connected, as it asked again meanwhile.
    func yieldOwnership(_ state: ConnectionState, unlessWanted: Bool = false) async {
        guard let sharing else { return }
        let ending = turns.withLock { turns -> Task<Void, Never>? in
            if unlessWanted, sharing.wantsConnection { return nil }
            // A logout gives it up by itself, and by now it may be the next login's.
            if turns.closed?.code == .loggedOut { return nil }
            return turns.end { driver in
                await self.retire(driver, state)
                // Not what another client of the process took since.
                await sharing.giveUp()
            }
        }
        guard let ending else { return }
        keepContending(goesOn: true)
        await ending.value
    }

    private func retire(_ task: Task<DriverHandle, any Error>?, _ state: ConnectionState) async {
        guard let handle = try? await task?.value else { return }
        let trackers = await withCheckedContinuation { continuation in
            handle.run { driver in driver.retire(state) { continuation.resume(returning: $0) } }
        }
        sharing?.follow(trackers)
    }

    // MARK: What the app asks

    func waiting() async throws -> [SendStatus] {
        if let sharing { return try await sharing.storage.waiting() }
        return try await ask { $0.statuses }
    }

    func status(of send: SendID) async throws -> SendStatus? {
        guard let sharing else { return try await ask { $0.status(of: send) } }
        if let known = try? await ask({ $0.status(of: send) }) { return known }
        return try await sharing.storage.statuses(of: [send]).first
    }

    func receipt(for send: SendID) async throws -> SendReceipt? {
        guard let sharing else { return try await ask { $0.receipt(for: send) } }
        if let known = try? await ask({ $0.receipt(for: send) }) { return known }
        return try await sharing.receipt(for: send)
    }

    /// Waits until the outbox has room, or for a moment where another process's messages may fill it: nobody tells of those.
    func someRoom(_ room: AsyncStream<Void>) async {
        if let sharing {
            try? await Task.sleep(for: sharing.storage.pollInterval)
        } else {
            for await _ in room { return }
        }
    }

    func cancel(_ send: SendID) async throws -> CancelResult {
        do {
            let handle = try await handle()
            let result = try await withCheckedThrowingContinuation { continuation in
                handle.run { driver in driver.cancelSend(send) { continuation.resume(with: $0) } }
            }
            guard let sharing, result == .unknown else { return result }
            return try await sharing.storage.cancel(send)
        } catch let error as ClientError where error.isOfAnotherOwner {
            guard let sharing else { throw error }
            return try await sharing.storage.cancel(send)
        }
    }

    /// Asks the driver; one that another process's turn ended meanwhile neither knows nor keeps anything any more.
    func ask<Value: Sendable>(_ question: @escaping @Sendable (ConnectionDriver) -> Value) async throws -> Value {
        while true {
            let handle = try await handle()
            let answer: Value? = await withCheckedContinuation { continuation in
                handle.run { driver in
                    continuation.resume(returning: driver.isRetired ? nil : .some(question(driver)))
                }
            }
            if let answer { return answer }
        }
    }
}
