import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Who is shut out.
enum RevocationTarget: Sendable {
    case user(UserKey)
    case device(DeviceKey)
    case token(String, TenantID)
}

extension ServerCore {
    /// Makes a revocation durable, then ends the live sessions it names, on every loop. A credential that it names and that is
    /// being verified meanwhile is verified again.
    ///
    /// When it throws, nothing was revoked and every session goes on.
    /// - Parameters:
    ///   - until: when a token would expire by itself, in milliseconds since 1970.
    ///   - close: what the sessions are told.
    func revoke(
        _ target: RevocationTarget, until: UInt64 = 0, close: Close, on loops: [LoopReference]
    ) async throws(StoreError) {
        switch target {
        case .user(let user): try await store.revoke(user: user.user, in: user.tenant)
        case .device(let device): try await store.revoke(device: device)
        case .token(let token, let tenant): try await store.revoke(token: token, in: tenant, until: until)
        }
        revocations.append(target)
        await loops.submit { loop in
            loop.end(target, close)
            // A session that ends leaves a place for its device to go on from, and here nothing shall go on. At once: another loop may be
            // stuck.
            self.registry.forget(target)
        }
    }
}

extension SessionRegistry {
    /// Forgets the ended sessions that a revocation names, where it names devices.
    fileprivate func forget(_ target: RevocationTarget) {
        switch target {
        case .user(let user): forget(user)
        case .device(let device): forget(device)
        case .token: break
        }
    }
}

extension ServerCore {
    /// Resolves to erase a user, durably, and begins, unless that is under way: who asks may go away then.
    func beginErasure(_ user: UserKey, on loops: [LoopReference]) async throws(StoreError) -> Erasure {
        if try await !store.isErasurePending(of: user.user, in: user.tenant) {
            try await store.requestErasure(of: user.user, in: user.tenant)
        }
        return goOnErasing(user, on: loops)
    }

    /// Goes on with what an earlier process, or a store without room, did not bring to its end. Who cancels it, and stops the
    /// erasures, waits for one step at most.
    func resumeErasures(on loops: [LoopReference]) async {
        do {
            for pending in try await store.pendingErasures(limit: 1_000) where !Task.isCancelled {
                let user = UserKey(tenant: pending.tenant, user: pending.user)
                // What fails is noted, and stays pending.
                try? await goOnErasing(user, on: loops).finished()
            }
        } catch {
            note(error, in: "pending erasures")
        }
    }

    private func goOnErasing(_ user: UserKey, on loops: [LoopReference]) -> Erasure {
        erasures.join(user) {
            do throws(StoreError) {
                // Another may have come to its end since the caller looked, and the account be somebody's anew.
                guard try await self.store.isErasurePending(of: user.user, in: user.tenant) else {
                    self.webhooks?.erased(user)
                    return
                }
                try await self.erase(user, on: loops)
            } catch {
                // One that was stopped did not fail.
                if !Task.isCancelled { self.note(error, in: "erasure") }
                throw error
            }
        }
    }

    /// Forgets a user: shuts the user out, waits until nothing of the user's is on its way to the store, then takes the
    /// store's steps, with rests between.
    private func erase(_ user: UserKey, on loops: [LoopReference]) async throws(StoreError) {
        let close = Close(code: .loggedOut, reason: "the account was erased")
        try await revoke(.user(user), close: close, on: loops)
        for loop in loops {
            let (worked, appended) = (
                loop.eventLoop.makePromise(of: Void.self), loop.eventLoop.makePromise(of: Void.self)
            )
            loop.execute { $0.whenAnswered(work: worked, appends: appended) }
            try? await worked.futureResult.and(appended.futureResult).map { _, _ in }.get()
        }
        await cursors.forget(user)
        // The sessions told the user's home that they are gone; behind this it has written down what it will.
        for loop in loops { try? await loop.submit { _ in } }
        try? await loops.first?.submit { $0.forgetPresence(of: user) }
        for loop in loops { try? await loop.submit { _ in } }
        await presence.forget(user)
        try await webhooks?.forget(user)
        // Before the store's last step, with which the erasure is no longer resolved.
        try await erasureHooks.run(user)
        try await upkeep.erase(user, from: store, erasureTurns) { step in
            // The members of the rooms that the user was in are told.
            let heads = Dictionary(
                step.left.map { (ChannelKey(tenant: user.tenant, channel: $0.channel), $0.position) }
            ) { $1 }
            for room in heads.keys { self.roomRules.changed(room) }
            if !heads.isEmpty { for loop in loops { loop.execute { $0.wake(heads) } } }
        }
        webhooks?.erased(user)
        // What ended sessions left behind for their devices' next ones.
        registry.forget(user)
    }
}

extension ServerLoop {
    /// Ends the sessions that a revocation names.
    /// - Returns: how many were up.
    @discardableResult
    func end(_ target: RevocationTarget, _ close: Close) -> Int {
        let live = sessions(of: target).filter { $0.phase != .ended }
        for host in live { host.end(close) }
        return live.count
    }
}
