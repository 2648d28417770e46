import Logging
import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import QUICTransport

extension ConnectionDriver {
    /// Addresses may come and go all the time, as those of virtual machines do: what they lead to though no route is another one (back-off
    /// anew, an attempt, a question on the path) is done no oftener than this.
    private static let changeInterval = TimeAmount.seconds(15)
    /// Routes are changed a moment behind the addresses that they lead to.
    private static let routesSettle = TimeAmount.seconds(1)
    /// An attempt has so long before it may count as unanswered: two slow round trips behind a Retry, or a lost first packet.
    private static let answerTime = TimeAmount.seconds(2)

    /// Moves the connection to another local address, or to a new port when `local` is nil.
    func migrate(to local: SocketAddress?, cause: MigrationCause, done: @escaping (ClientError?) -> Void) {
        guard case .connected = phase, let link = current, let mobile = link.mobile, let info = link.info else {
            return done(
                ClientError(
                    .notConnected, message: "there is no connection that could be moved",
                    advice: "wait until the client is connected"))
        }
        guard link.isMigrationSafe else {
            return done(
                ClientError(
                    .migrationFailed, message: "connections to this access point can't be moved to another path",
                    advice: "the client opens another one by itself when the network changes"))
        }
        publish(.migrating(cause))
        // A path change ends after its link does, when the driver may be gone with its client.
        mobile.migrate(to: local) { [weak self] result in
            guard let self else {
                return done(ClientError(.disconnected, message: "the client is gone"))
            }
            switch result {
            case .success:
                pathChanged(link)
                done(nil)
            case .failure(let error) where (error as? QUICTransportError)?.code == .superseded:
                // The newer one tells how it ends.
                done(ClientError(.migrationFailed, message: "a newer move took this one's place", cause: error))
            case .failure(let error):
                if current === link, case .connected = phase { publish(.connected(link.info ?? info)) }
                done(ClientError(.migrationFailed, message: "the new path did not work", cause: error))
            }
        }
    }

    /// The link runs on another path, and the path was validated.
    func pathChanged(_ link: DriverLink) {
        guard current === link, var info = link.info else { return }
        let local = link.mobile?.localAddress.map(describe)
        let remote = link.link?.remoteAddress ?? info.remoteAddress
        // The transport tells it twice: when the path changed, and to whoever asked for the move.
        if local != info.localAddress || remote != info.remoteAddress {
            session.pathChanged(now: clock.now())
            askForAddress(on: link)
            statistics.migrations += 1
            enterNetwork(of: link)
            // What the session had still to do may have been its end.
            guard current === link else { return }
            info.localAddress = local
            info.remoteAddress = remote
            link.info = info
        }
        if case .migrating = outlets.states.latest {
            publish(.connected(info))
        } else if info != link.announced {
            publish(.connected(info))
        }
        link.announced = info
        pump()
    }

    /// Asks once more which address the service sees: it believes a new one only after it validated the path itself
    /// (RFC 9000 section 9.3), and the first answer may come before that.
    private func askForAddress(on link: DriverLink) {
        let roundTrip = link.mobile?.linkStatistics?.smoothedRTT ?? .zero
        _ = schedule(in: TimeAmount(max(.milliseconds(100), roundTrip * 3))) { driver in
            guard driver.current === link else { return }
            driver.session.pathChanged(now: driver.clock.now())
            driver.pump()
        }
    }

    /// The session got no answer on this path: a new local port first (a NAT may have forgotten the old one), at the address by which
    /// packets leave now, then a new connection, which returns by 0-RTT.
    func probePath(of link: DriverLink) {
        link.probes += 1
        guard link.probes == 1, let mobile = link.mobile, link.connectedAt != nil, mobile.isHandshakeConfirmed else {
            return abandonPath(of: link, .unanswered("the path stopped to answer"))
        }
        // An address that the app chose for its connections is theirs, wherever routes lead.
        let local = configuration.localAddress == nil ? routedAddress(of: link) : nil
        migrate(to: local, cause: .noAnswer) { [weak self] error in
            guard let error, !error.isSupersededMove else { return }
            self?.abandonPath(of: link, .unanswered("the path stopped to answer"))
        }
    }

    /// Leaves a path that is dead, and connects anew at once.
    func abandonPath(of link: DriverLink, _ end: LinkEnd) {
        // Not from within the session's actions: they may still speak of this link.
        hop { (driver: ConnectionDriver, _: Void) in
            guard driver.current === link else { return }
            driver.giveUpCurrent()
            driver.linkEnded(end, link: link)
        }(())
    }

    // MARK: The machine's addresses

    func startMonitor() {
        guard configuration.watchesNetwork, monitor == nil else { return }
        let changed = hop { (driver: ConnectionDriver, change: AddressChange) in driver.addressesChanged(change) }
        let monitor = NetworkMonitor(loop: loop, logger: logger, changed: changed)
        self.monitor = monitor
        monitor.start()
    }

    func addressesChanged(_ change: AddressChange) {
        noticeTime()
        logger.debug("addresses changed", metadata: ["gone": "\(change.gone)", "new": "\(change.new)"])
        addressesChangedAt = clock.now()
        switch phase {
        case .idle, .stopped: return
        case .preparing, .waiting:
            let isRenewed = renewBackOff()
            // One that is gone counts, too: from now on packets leave by another.
            if isRenewed || routes.use(anyOf: change.gone) || routes.areOthers(by: lookUpRoute) { tryAnew() }
        case .connecting:
            _ = renewBackOff()
            // Before the handshake is confirmed a QUIC connection can't move: start again on the new path.
            guard let link = current else { return }
            let address = link.transport?.localAddress?.ipAddress
            if address.map({ change.gone.contains($0) }) ?? routes.use(anyOf: change.gone) {
                giveUpCurrent()
                return linkEnded(.pathGone("the local address changed"), link: link)
            }
        case .connected:
            guard let link = current, let address = link.mobile?.localAddress?.ipAddress else { return }
            if change.gone.contains(address) { return moveFromLostAddress(link) }
        }
        lookAtRoutes(in: Self.routesSettle)
    }

    /// Looks once the routes are there, and once for many changes.
    private func lookAtRoutes(in delay: TimeAmount) {
        if let routesTimer {
            guard clock.now() + delay < routesTimer.due else { return }
            routesTimer.cancel()
        }
        routesTimer = schedule(in: delay) { driver in
            driver.routesTimer = nil
            driver.routesSettled()
            // The routes of a change that came meanwhile may not be there yet.
            let age = driver.clock.now() - driver.addressesChangedAt
            if age < Self.routesSettle { driver.lookAtRoutes(in: Self.routesSettle - age) }
        }
    }

    private func routesSettled() {
        switch phase {
        case .idle, .stopped: break
        case .preparing, .waiting: if routes.areOthers(by: lookUpRoute) { tryAnew() }
        case .connecting: if let current { startAgainIfUnanswered(current) }
        case .connected: if let current { askPath(of: current) }
        }
    }

    /// What was tried by the old routes is tried by the new ones.
    private func tryAnew() {
        noteRoutes()
        if case .preparing = phase { askAnew() } else { connectNow() }
    }

    /// Takes note of the routes by which an attempt goes.
    func noteRoutes() { routes = Routes(toward: plan.target, by: lookUpRoute) }

    /// An attempt goes to the addresses that there was a route to when it began: where IPv6 was there first and leads nowhere, IPv4 isn't
    /// tried any more. One that the server has not answered by now starts again, if it would go another way.
    private func startAgainIfUnanswered(_ link: DriverLink) {
        // One from an address that the app chose begins there again.
        let isElsewhere = configuration.localAddress == nil && isRoutedElsewhere(link)
        guard !link.isAnswered, isElsewhere || routes.areOthers(by: lookUpRoute) else { return }
        let age = clock.now() - link.startedAt
        guard age >= Self.answerTime else { return lookAtRoutes(in: Self.answerTime - age) }
        giveUpCurrent()
        linkEnded(.pathGone("other routes came, and nothing by the old ones"), link: link)
    }

    /// Where packets would leave by another address now, as behind a VPN that came up, those of this one may be lost, or dropped on the
    /// way back. The next beat would find that out, minutes later.
    private func askPath(of link: DriverLink) {
        guard isRoutedElsewhere(link) else { return }
        let now = clock.now()
        if let last = link.askedAt, now - last < Self.changeInterval {
            return lookAtRoutes(in: Self.changeInterval - (now - last))
        }
        link.askedAt = now
        session.askPath(now: now)
        pump()
    }

    /// Whether packets to the link's server would leave by another address now than by its own.
    private func isRoutedElsewhere(_ link: DriverLink) -> Bool {
        guard let address = link.mobile?.localAddress?.ipAddress, let routed = routedAddress(of: link)?.ipAddress else {
            return false
        }
        return routed != address
    }

    /// The address, with port 0, by which packets to the link's server would leave now; nil: no route leads there.
    private func routedAddress(of link: DriverLink) -> SocketAddress? {
        link.link.flatMap { lookUpRoute($0.remoteAddress) }
    }

    /// Back-off so far is about the network before. The first attempt in the new one often fails as well, since routes and the resolver
    /// follow an address only after a while: it must not be the last one for a minute.
    /// - Returns: whether it was not done lately.
    private func renewBackOff() -> Bool {
        let now = clock.now()
        if let last = backOffRenewedAt, now - last < Self.changeInterval { return false }
        backOffRenewedAt = now
        plan.networkChanged()
        access.networkChanged()
        silentTickets = [:]
        return true
    }

    private func moveFromLostAddress(_ link: DriverLink) {
        // What the server waits for can't leave by the dead path: another connection is up sooner.
        guard link.mobile?.isHandshakeConfirmed == true else {
            return abandonPath(of: link, .pathGone("the local address is gone"))
        }
        guard let local = routedAddress(of: link) else {
            return abandonPath(of: link, .pathGone("the local address is gone"))
        }
        migrate(to: local, cause: .addressGone) { [weak self] error in
            guard let error, !error.isSupersededMove else { return }
            self?.abandonPath(of: link, .pathGone("the local address is gone"))
        }
    }
}

extension ClientError {
    /// Whether a newer move of the connection took this one's place: it says nothing about the path.
    fileprivate var isSupersededMove: Bool { (cause as? QUICTransportError)?.code == .superseded }
}

/// An address and port as text, without the scheme that NIO's description adds.
func describe(_ address: SocketAddress) -> String {
    guard let host = address.ipAddress else { return address.description }
    let port = address.port ?? 0
    return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
}
