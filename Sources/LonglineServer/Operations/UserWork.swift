import LonglineStore
package import LonglineWire

/// Something of a user's that is under way for the app's own server: the erasure of the account waits until it ended.
package struct UserWork: Sendable {
    let loop: LoopReference
    let number: UInt64

    /// It is over, whatever came of it. Once.
    package func end() {
        let number = self.number
        loop.execute { $0.endWork(number) }
    }
}

extension LonglineServer {
    /// Begins something of a user's, unless the account is being erased. An erasure that is asked for afterwards waits until it ended, and
    /// takes what it wrote: nothing of the user's is written behind the erasure's steps.
    /// - Returns: what has to be ended; nil while the account is being erased.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    package func beginUnlessErasing(_ user: UserID, in tenant: TenantID) async throws(ServerError) -> UserWork? {
        try await requireRuntime().beginUnlessErasing(UserKey(tenant: tenant, user: user))
    }
}

extension ServerRuntime {
    /// See ``LonglineServer/beginUnlessErasing(_:in:)``.
    func beginUnlessErasing(_ user: UserKey) async throws(ServerError) -> UserWork? {
        // Before the store is asked: an erasure that it doesn't know of yet finds this under way.
        guard let work = await beginWork(for: user) else {
            throw ServerError(.notRunning, message: "no event loop of the server answers")
        }
        do {
            if try await !core.store.isErasurePending(of: user.user, in: user.tenant) { return work }
        } catch {
            work.end()
            throw ServerError(.storeUnavailable, message: "the store could not be asked", cause: error)
        }
        work.end()
        return nil
    }

    /// On any loop, as an erasure waits for all. One that is stuck gives way to the next.
    private func beginWork(for user: UserKey) async -> UserWork? {
        guard !loops.isEmpty else { return nil }
        let first = Int(UInt(bitPattern: user.hashValue) % UInt(loops.count))
        let patience = core.limits.loopPatience
        for loop in loops[first...] + loops[..<first] {
            let number = await loop.submit(before: { try await Task.sleep(for: patience) }) { $0.beginWork() }
            if let number { return UserWork(loop: loop, number: number) }
        }
        return nil
    }
}
