import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// What the app's own server publishes, and the erasures of accounts that it or a device asks for: these are resolved durably, and then go
/// on step by step whatever happens to the process meanwhile.
extension ModelServer {
    /// A publish of the app's own server, with the number that the ledger knows it by.
    struct ServiceAppend {
        let order: ServiceOrder
        let number: PublishID
        let reply: (PublishOutcome) -> Void
    }

    func publish(_ order: ServiceOrder, as number: PublishID, reply: @escaping (PublishOutcome) -> Void) {
        simulation.checker.services.asked(order, as: number)
        pendingService.append(ServiceAppend(order: order, number: number, reply: reply))
        commitSoon()
    }

    func enter(_ append: ServiceAppend) -> (outcome: PublishOutcome, woken: Set<ChannelID>) {
        let order = append.order
        let publish = Publish(
            id: append.number, tag: order.number, after: 0, recipient: order.recipient, timeToLive: 0,
            payload: order.payload)
        return store.append(
            publish, channel: order.log, user: order.sender, device: simulation.serviceDevice,
            producer: ProducerID(high: 1 << 32, low: 1), isService: true)
    }

    /// The process is killed at a moment that matters.
    func kill() {
        simulation.counts.serverCrashes += 1
        restart()
    }

    // MARK: Erasures

    /// Has an account erased.
    /// - Returns: whether that is resolved, and goes on by itself.
    func erase(_ user: UserID) -> Bool {
        if !store.isErasing(user) {
            guard !isDiskFull, write({ store.requestErasure(of: user) }) != nil else { return false }
        }
        goOnErasing(user)
        return true
    }

    /// A device has its user's account erased.
    func eraseAccount(of hosted: Hosted) {
        guard let user = hosted.user, !erase(user) else { return }
        input(hosted) { $0.erasureRefused(ErasureRefused(code: .storageFull, retryAfter: 30), now: $1) }
    }

    /// A new process goes on with what an earlier one did not bring to its end.
    func resumeErasures() {
        guard !store.erasing.isEmpty, !has(.forgetErasures) else { return }
        soon(0...40) { server in
            for user in server.store.erasing { server.goOnErasing(user) }
        }
    }

    func soon(_ range: ClosedRange<Int64>, _ body: @escaping (ModelServer) -> Void) {
        let life = life
        scheduler.after(.milliseconds(simulation.draw(range))) { [weak self] in
            guard let self, self.life == life else { return }
            body(self)
        }
    }

    private func goOnErasing(_ user: UserID) {
        guard store.isErasing(user), erasing.insert(user).inserted else { return }
        shutOut(user)
    }

    /// Voids every credential once more, and ends the sessions.
    private func shutOut(_ user: UserID) {
        guard !isDiskFull else { return soon(20...80) { $0.shutOut(user) } }
        guard write({ store.revoke(user) }) != nil else { return }
        for hosted in inOrder where hosted.user == user {
            hosted.held = []
            hosted.unsettled = []
            if !has(.keepErasedSessions) {
                input(hosted) { $0.close(Close(code: .loggedOut, reason: "the account was erased"), now: $1) }
                forget(hosted)
            }
            hosted.isShutOut = true
        }
        forgetSent(to: user)
        waitForWrites(of: user)
    }

    /// Waits until nothing of the user's is on its way to the store.
    private func waitForWrites(of user: UserID) {
        let isWriting =
            pending.contains { $0.hosted.user == user } || pendingService.contains { $0.order.sender == user }
        guard !isWriting || has(.eraseBeforeWrites) else { return soon(1...5) { $0.waitForWrites(of: user) } }
        guard !isDiskFull else { return soon(20...80) { $0.waitForWrites(of: user) } }
        guard write({ control.forget(user) }) != nil else { return }
        // Where that rule is broken: before what was not waited for is entered.
        soon(has(.eraseBeforeWrites) ? 0...0 : 0...150) { $0.takeStep(user) }
    }

    private func takeStep(_ user: UserID) {
        guard !isDiskFull else { return soon(20...80) { $0.takeStep(user) } }
        let devices = simulation.names(of: user) + [simulation.serviceDevice]
        guard let step = write({ store.erase(user, devices: devices) }) else { return }
        wake(step.rooms)
        if step.isDone { return finishErasure(of: user) }
        if simulation.killsServer(0.08) { return kill() }
        soon(3...60) { $0.takeStep(user) }
    }

    private func finishErasure(of user: UserID) {
        erasing.remove(user)
        forgetSent(to: user)
    }

    /// What ended sessions left behind for their devices' next ones.
    private func forgetSent(to user: UserID) {
        for device in simulation.names(of: user) { sent[DeviceName(user: user, device: device)] = nil }
    }
}
