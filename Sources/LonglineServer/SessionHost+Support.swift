import DequeModule
import Logging
import LonglineKeys
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// What of a CONNECT is needed after it was answered.
struct ConnectSummary {
    let producer: ProducerID
    let connectNumber: UInt64
    /// The client's name for logs, without what could break a line.
    let agent: String

    init(_ connect: Connect) {
        producer = connect.producer
        connectNumber = connect.connectNumber
        agent = String(
            connect.agent.unicodeScalars.prefix(FrameLimits.maximumAgent).map { scalar -> Character in
                (0x20...0x7E).contains(scalar.value) ? Character(scalar) : "?"
            })
    }
}

/// Reaches a ``SessionHost`` from any thread.
struct SessionReference: SessionHandle {
    let eventLoop: any EventLoop
    let host: NIOLoopBound<SessionHost>

    func end(_ close: Close) { eventLoop.execute { host.value.end(close) } }

    func sentPositions(within patience: Duration) async -> [ChannelPosition]? {
        await eventLoop.submit(before: { try await Task.sleep(for: patience) }) { [host] in host.value.sentPositions }
    }
}

extension SessionHost {
    /// Runs work off the loop, then comes back with its answer. The session is drained afterwards.
    func offLoop<Answer: Sendable>(
        _ work: @escaping @Sendable () async -> Answer, then: @escaping @Sendable (SessionHost, Answer) -> Void
    ) {
        begin(loop.beginWork(), work, then: then)
    }

    /// As ``offLoop(_:then:)``, for changes that take effect in the order in which the device asked for them: the next one begins
    /// when the one before was answered, also if the link is gone by then. They are as few as the requests that a session may
    /// have open, and what the user's other devices change at their rate.
    func inOrder<Answer: Sendable>(
        _ work: @escaping @Sendable () async -> Answer, then: @escaping @Sendable (SessionHost, Answer) -> Void
    ) {
        // From now on: who waits until this session has nothing on its way to the store waits for what stands in line, too.
        let number = loop.beginWork()
        let change: (SessionHost) -> Void = { host in
            host.begin(number, work) { host, answer in
                then(host, answer)
                host.changeIsUnderWay = false
                host.beginNextChange()
            }
        }
        waitingChanges.append(change)
        beginNextChange()
    }

    private func beginNextChange() {
        guard !changeIsUnderWay, let change = waitingChanges.popFirst() else { return }
        changeIsUnderWay = true
        change(self)
    }

    private func begin<Answer: Sendable>(
        _ number: UInt64, _ work: @escaping @Sendable () async -> Answer,
        then: @escaping @Sendable (SessionHost, Answer) -> Void
    ) {
        let reference = self.reference
        Task {
            let answer = await work()
            reference.eventLoop.execute {
                let host = reference.host.value
                then(host, answer)
                host.drain()
                host.loop.endWork(number)
            }
        }
    }

    // MARK: Refreshing the token

    /// Verifies a fresh token for the session that lives.
    /// - Parameter attempts: how often, when it may have been revoked meanwhile.
    func refresh(_ token: String, attempts: Int = 3) {
        guard let identity else { return }
        let core = self.core
        let revocations = core.revocations.count
        offLoop {
            await Result { () async throws(AuthenticationError) in
                try await core.authenticator.refresh(token, of: identity, now: core.time())
            }
        } then: { host, result in
            guard host.phase != .ended else { return }
            switch result {
            case .failure(let error): host.session.rejected(Close(error, limits: core.limits), now: host.now)
            case .success(let fresh):
                guard core.revocations.mayName(fresh.identity, since: revocations) else {
                    return host.refreshed(fresh, knowing: revocations)
                }
                if attempts > 1 { return host.refresh(token, attempts: attempts - 1) }
                let retryAfter = core.limits.retryAfter.wholeMilliseconds
                host.session.rejected(
                    Close(code: .overloaded, reason: "try again", retryAfter: retryAfter), now: host.now)
            }
        }
    }

    private func refreshed(_ fresh: AuthenticatedIdentity, knowing revocations: UInt64) {
        // By its new token, too.
        if let identity { loop.unregister(self, identity) }
        authenticated = fresh
        revocationsKnown = revocations
        loop.register(self, fresh.identity)
        session.refreshed(fresh.identity, time: core.time(), now: now)
        renewClaim()
        drain()
        // The old ticket ends with the old token.
        guard phase == .established, let ticket = core.authenticator.tickets.seal(fresh, now: core.time()) else {
            return
        }
        link?.send(.ticket(ticket), lane: .control)
    }

    // MARK: Logging out

    /// Makes the device's credentials void, then ends its sessions: this one, and one that comes up elsewhere meanwhile.
    func logOut() {
        guard let device else { return }
        let core = self.core
        let loops = loop.siblings + [loop.reference]
        offLoop {
            await Result { () async throws(StoreError) in
                let close = Close(code: .loggedOut, reason: "logged out")
                try await core.revoke(.device(device), close: close, on: loops)
            }
        } then: { host, result in
            // Without a durable revocation there is no logout: the client learns it by the code.
            guard case .failure(let error) = result, host.phase != .ended else { return }
            core.note(error, in: "logout")
            host.end(Close(error, limits: core.limits))
        }
    }

    /// Has the user's account erased. Once that is resolved durably the erasure itself ends the sessions.
    func eraseAccount() {
        guard let user = device?.userKey else { return }
        let core = self.core
        let loops = loop.siblings + [loop.reference]
        core.log.log(.notice, "a device has its account erased", metadata())
        offLoop {
            await Result { () async throws(StoreError) in _ = try await core.beginErasure(user, on: loops) }
        } then: { host, result in
            guard case .failure(let error) = result, host.phase != .ended else { return }
            core.note(error, in: "erasure")
            let code = error.refusal
            host.loop.statistics.countRefusal(code)
            let retryAfter = core.limits.retryAfter.wholeMilliseconds
            host.session.erasureRefused(ErasureRefused(code: code, retryAfter: retryAfter), now: host.now)
        }
    }

    // MARK: Logs

    /// Who and where, for a log line.
    func metadata(_ more: Logger.Metadata = [:]) -> Logger.Metadata {
        var metadata = more
        metadata["link"] = "\(id)"
        if let link {
            metadata["transport"] = "\(link.kind.rawValue)"
            metadata["remote"] = "\(link.remoteAddress)"
        }
        if sessionNumber != 0 { metadata["session"] = "\(sessionNumber)" }
        if let identity {
            metadata["tenant"] = "\(identity.tenant)"
            metadata["user"] = "\(identity.user)"
            metadata["device"] = "\(identity.device)"
        }
        return metadata
    }
}

extension Result {
    /// An async throwing body's result.
    init(_ body: () async throws(Failure) -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
