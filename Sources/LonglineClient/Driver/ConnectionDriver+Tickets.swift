/// What shortens the next connect: tickets and address tokens.
extension ConnectionDriver {
    /// TLS 1.3 caps a ticket at seven days (RFC 8446 section 4.6.1).
    private static let transportTicketLife: UInt64 = 7 * 86_400_000
    /// Of so many access points TLS tickets and address tokens are kept.
    static let rememberedAccessPoints = 16

    func keepResumeTicket(_ ticket: StoredSecret?) {
        resumeTicket = ticket
        pending.resumeTicket = .some(ticket)
    }

    func keepTransportTicket(_ ticket: [UInt8], for accessPoint: AccessPoint) {
        let key = accessPoint.description
        let secret = StoredSecret(bytes: ticket, expiry: clock.wall() + Self.transportTicketLife)
        transportTickets[key] = secret
        pending.transportTickets[key] = .some(secret)
        forgetOldAccessPoints(but: key)
        scheduleFlush()
    }

    func keepAddressToken(_ token: [UInt8], for accessPoint: AccessPoint) {
        let key = accessPoint.description
        addressTokens[key] = token
        pending.addressTokens[key] = .some(token)
        forgetOldAccessPoints(but: key)
        scheduleFlush()
    }

    /// Each token is used once: everybody on the way can read it, and would know the device again in another network.
    func takeAddressToken(for accessPoint: AccessPoint) -> [UInt8]? {
        guard let token = addressTokens.removeValue(forKey: accessPoint.description) else { return nil }
        pending.addressTokens[accessPoint.description] = .some(nil)
        scheduleFlush()
        return token
    }

    /// The handshake failed. A ticket may be what broke it: the next attempt does without, and gets a new one if it comes through.
    func handshakeFailed(on link: DriverLink) {
        handshakeEnded(at: link.accessPoint)
        if link.usedSessionTicket { suspectTickets.insert(link.accessPoint) }
    }

    /// Somebody answered, or an attempt without a ticket was sent in vain: nothing is held against the ticket any more.
    func handshakeEnded(at accessPoint: AccessPoint) {
        silentTickets[accessPoint] = nil
        suspectTickets.remove(accessPoint)
    }

    /// Nothing came in time. That is the network's way, and a ticket isn't to blame for it; without one the next connect would not be
    /// one flight. But a server, or something before it, may drop what begins with a ticket without a word: after two such attempts
    /// in a row one does without.
    func handshakeTimedOut(on link: DriverLink) {
        guard link.handshake == nil else { return }
        guard link.usedSessionTicket else { return handshakeEnded(at: link.accessPoint) }
        silentTickets[link.accessPoint, default: 0] += 1
    }

    /// Whether an attempt makes a full handshake, for what came of those before. That holds until one was sent that did: where a name isn't
    /// found, or the network changes under it, nobody is asked.
    func doesWithoutTicket(to accessPoint: AccessPoint) -> Bool {
        suspectTickets.contains(accessPoint) || silentTickets[accessPoint, default: 0] >= 2
    }

    /// Nodes come and go, and what is of use at none would stay on the disk: forgets, with the next flush, the access points whose
    /// TLS ticket's time is over, and all but the newest.
    /// - Parameter newest: something was kept of it just now.
    func forgetOldAccessPoints(but newest: String? = nil) {
        let now = clock.wall()
        for (point, ticket) in transportTickets where point != newest && ticket.isOver(at: now) {
            forget(accessPoint: point)
        }
        let points = Set(transportTickets.keys).union(addressTokens.keys)
        guard points.count > Self.rememberedAccessPoints else { return }
        // An address token doesn't tell how old it is; the ticket does that came over the same link.
        func lastUse(_ point: String) -> (UInt64, String) {
            (point == newest ? .max : transportTickets[point]?.expiry ?? 0, point)
        }
        for point in points.sorted(by: { lastUse($0) > lastUse($1) }).dropFirst(Self.rememberedAccessPoints) {
            forget(accessPoint: point)
        }
    }

    private func forget(accessPoint: String) {
        if transportTickets.removeValue(forKey: accessPoint) != nil {
            pending.transportTickets[accessPoint] = .some(nil)
        }
        if addressTokens.removeValue(forKey: accessPoint) != nil { pending.addressTokens[accessPoint] = .some(nil) }
    }
}
