import LonglineLinks
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// The server without its sockets: the loops with their sessions, whatever carries the links.
final class ServerRuntime: Sendable {
    let core: ServerCore
    let loops: [LoopReference]
    let startedAt = NIODeadline.now()
    private let byLoop: [ObjectIdentifier: LoopReference]
    /// What each loop counted and held when it was asked last.
    private let lastFigures = Mutex<[ObjectIdentifier: ServerStatistics]>([:])

    /// Puts a ``ServerLoop`` on each of the group's loops.
    init(core: ServerCore, group: any EventLoopGroup) async throws {
        self.core = core
        var loops: [LoopReference] = []
        for eventLoop in group.makeIterator() {
            loops.append(try await eventLoop.submit { ServerLoop(core: core, eventLoop: eventLoop).reference }.get())
        }
        let all = loops
        for loop in all { try await loop.submit { $0.connect(to: all) } }
        self.loops = all
        byLoop = Dictionary(uniqueKeysWithValues: all.map { (ObjectIdentifier($0.eventLoop), $0) })
    }

    /// A handler for a link that comes up on one of the group's loops. Call it there.
    func makeHandler(on eventLoop: any EventLoop) -> any LinkHandler { loop(on: eventLoop).makeHost() }

    /// Counts a handshake of another protocol's connection. Call it on the connection's loop.
    func noteHandshake(resumed: Bool, earlyDataAccepted: Bool, on eventLoop: any EventLoop) {
        loop(on: eventLoop).noteHandshake(resumed: resumed, earlyDataAccepted: earlyDataAccepted)
    }

    private func loop(on eventLoop: any EventLoop) -> ServerLoop {
        guard let loop = byLoop[ObjectIdentifier(eventLoop)] else {
            preconditionFailure("connections come up on the server's own loops")
        }
        return loop.loop.value
    }

    // MARK: Revocation

    /// Shuts somebody out: see ``ServerCore/revoke(_:until:close:on:)``.
    func revoke(_ target: RevocationTarget, until: UInt64 = 0) async throws(StoreError) {
        let close = Close(code: .credentialRevoked, reason: "revoked")
        try await core.revoke(target, until: until, close: close, on: loops)
    }

    // MARK: Draining

    /// Ends every session, and refuses new ones.
    func drain() {
        let close = Close(code: .shuttingDown, reason: "the server stops")
        for loop in loops { loop.execute { $0.drain(close) } }
    }

    /// Waits until no link and no store call is left on any loop, or for `timeout`.
    /// - Returns: links that are left.
    func waitUntilIdle(timeout: TimeAmount) async -> Int { await waitUntilIdle(until: .now() + timeout) }

    /// As ``waitUntilIdle(timeout:)``, until a time. All loops wait at once; one that is stuck holds up nobody for longer than
    /// ``ServerLimits/loopPatience`` behind it, and counts with all links that there are then.
    func waitUntilIdle(until deadline: NIODeadline) async -> Int {
        let patience = core.limits.loopPatience
        let left = await withTaskGroup(of: Int?.self) { group in
            for loop in loops { group.addTask { await loop.whenIdle(until: deadline, patience: patience) } }
            var sum: Int? = 0
            for await part in group {
                if let before = sum, let part { sum = before + part } else { sum = nil }
            }
            return sum
        }
        // What sessions said to other loops at their end has arrived behind this.
        await loops.run(waitingAtMost: patience) { _ in }
        return left ?? core.linkCount
    }

    /// The figures of all loops, of one that doesn't answer within ``ServerLimits/loopPatience`` those that it answered last.
    func statistics() async -> ServerStatistics {
        let patience = core.limits.loopPatience
        return await statistics(before: { try await Task.sleep(for: patience) })
    }

    /// - Parameter late: see ``LoopReference/submit(before:_:)``.
    func statistics(before late: @escaping @Sendable () async throws -> Void) async -> ServerStatistics {
        var sum = await withTaskGroup(of: ServerStatistics.self) { group in
            for loop in loops { group.addTask { await self.figures(of: loop, before: late) } }
            var all = ServerStatistics()
            for await part in group { all.add(part) }
            return all
        }
        core.addStatistics(to: &sum)
        return sum
    }

    private func figures(
        of loop: LoopReference, before late: @escaping @Sendable () async throws -> Void
    ) async -> ServerStatistics {
        let id = ObjectIdentifier(loop.eventLoop)
        let present = await loop.submit(before: late) { loop in
            let figures = loop.snapshot()
            // Here, so that none takes the place of a later one.
            self.lastFigures.withLock { $0[id] = figures }
            return figures
        }
        if let present { return present }
        var last = lastFigures.withLock { $0[id] } ?? ServerStatistics()
        last.loopsBehind = 1
        return last
    }
}
