import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// One attempt to connect: where, with which number and credential, and the link that is opened then.
extension ConnectionDriver {
    func beginAttempt() {
        generation += 1
        attempts += 1
        attemptBeganAt = clock.now()
        phase = .preparing
        question?.cancel()
        question = nil
        attemptToken = nil
        noteRoutes()
        if let reason = stillAwayForUnread() { return linkEnded(.unread(reason), link: nil) }
        if mustLocate(isReturn: isReturn) { locate(generation) } else { prepare(generation) }
        if isAwaited { goOnForUserInTime() }
    }

    /// It is known where to connect.
    func prepare(_ generation: UInt64) {
        guard let target = plan.target else {
            return attemptFailed(ClientError(.controlUnavailable, message: "no access point is known"))
        }
        noteAccessSource()
        publish(.connecting(attempt: attempts, accessPoint: target))
        // Only damage brings a number so far; a new producer counts from 1.
        if connectNumber > FrameLimits.maximumNumber / 2 { needsNewProducer = true }
        if needsNewProducer {
            // The rows being written carry the old numbers: wait until they are all in one state.
            guard !isFlushing else {
                afterFlush.append { [unowned self] _ in
                    if self.generation == generation { prepare(generation) }
                }
                return
            }
            renewProducer()
        }
        if connectNumber + connectStep > reservedConnectNumber {
            // A block of numbers at once, so that a reconnect needn't wait for the disk.
            reservedConnectNumber = connectNumber + connectStep + 63
            pending.connectNumber = reservedConnectNumber
        }
        // With a ticket for both, what waits leaves with the first flight.
        if resumeTicket != nil, transportTickets[target.description] != nil { attemptAll() }
        afterDurable { [unowned self] error in
            guard self.generation == generation else { return }
            // A disk that takes nothing more is no reason to stay away: what is not durable just does not leave.
            if let error, pending.producer != nil || connectNumber + connectStep > durableConnectNumber {
                return attemptFailed(error)
            }
            obtainCredential(generation, for: target)
        }
    }

    /// How far the next connect number is from the last: 1, and after each refusal as stale but the first twice as far.
    ///
    /// A device restored from a backup so finds the number it had in as many attempts as that number has bits; the
    /// attempts themselves are spaced by the plan's back-off. Beyond 2^40 it doesn't grow, so that numbers never run out.
    private var connectStep: UInt64 { 1 << UInt64(min(40, max(0, staleRefusals - 1))) }

    func attemptFailed(_ error: ClientError) {
        statistics.failedAttempts += 1
        linkEnded(.failed(error), link: nil)
    }

    /// A resume ticket whose time isn't over.
    var usableTicket: StoredSecret? {
        resumeTicket.flatMap { $0.isOver(at: clock.wall()) ? nil : $0 }
    }

    private func obtainCredential(_ generation: UInt64, for target: AccessPoint) {
        // A ticket is the stored user's, whoever the app says has logged in.
        if stopsForOtherUser(token: nil) { return }
        if let ticket = usableTicket { return open(target, .ticket(ByteBuffer(bytes: ticket.bytes))) }
        if resumeTicket != nil { keepResumeTicket(nil) }
        // This one was looked at when it came.
        if let token = attemptToken { return open(target, .token(token)) }
        let arrived = hop { (driver: ConnectionDriver, token: Result<String, any Error>) in
            guard driver.generation == generation else { return }
            driver.question = nil
            switch token {
            case .success(let token):
                if driver.stopsForOtherUser(token: token) { return }
                if driver.forgetAccess(unlessFor: token) { return driver.locate(generation) }
                driver.learnUser(fromToken: token)
                driver.open(target, .token(token))
            case .failure(let error): driver.attemptFailed(Self.noToken(error))
            }
        }
        question?.cancel()
        question = askForToken(arrived)
    }

    private func open(_ target: AccessPoint, _ credential: Credential) {
        let usesTicket: Bool
        if case .ticket = credential { usesTicket = true } else { usesTicket = false }
        var ticket = transportTickets[target.description].flatMap {
            $0.isOver(at: clock.wall()) ? nil : $0.bytes
        }
        if doesWithoutTicket(to: target) { ticket = nil }
        connectNumber += connectStep
        assert(connectNumber <= durableConnectNumber, "a connect number is durable before it is used")
        let link = DriverLink(
            driver: self, accessPoint: target, isMigrationSafe: isMigrationSafe(target), credential: credential,
            startedAt: clock.now(), usedSessionTicket: ticket != nil)
        phase = .connecting
        current = link
        attemptTimer = schedule(in: TimeAmount(configuration.connectTimeout)) { driver in
            guard driver.current === link else { return }
            // The time of one that still looks for its host says nothing about the server.
            let wasSent = link.wasSent
            driver.giveUpCurrent()
            if wasSent { driver.handshakeTimedOut(on: link) }
            driver.attemptFailed(
                ClientError(
                    .connectFailed, message: "no answer from \(target) in \(driver.configuration.connectTimeout)"))
        }
        let request = LinkRequest(
            accessPoint: target, serverName: configuration.serverName ?? target.host, sessionTicket: ticket,
            addressToken: takeAddressToken(for: target), earlyData: usesTicket && ticket != nil,
            localAddress: configuration.localAddress)
        link.attempt = connector.open(request, on: loop, handler: link) { [weak self] error in
            link.attemptFailed()
            guard let self, current === link else { return }
            current = nil
            attemptTimer?.cancel()
            attemptFailed(error)
        }
        if isInOutage { (link.attempt as? any MobileLink)?.goSilent() }
    }
}
