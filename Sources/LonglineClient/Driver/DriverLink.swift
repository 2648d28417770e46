import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// One attempt to be connected, from its first packet to the end of its link. Forwards the link's events to the driver
/// while it is the driver's current one; a link that comes too late is closed.
///
/// It keeps its driver until the link is over, also when the client is gone by then.
final class DriverLink: LinkHandler {
    let accessPoint: AccessPoint
    /// Whether it may be moved to another path.
    let isMigrationSafe: Bool
    let credential: Credential
    let startedAt: NIODeadline
    /// Whether a TLS ticket was used, which may be what made the handshake fail.
    let usedSessionTicket: Bool
    private(set) var link: (any Link)?
    private(set) var handshake: LinkHandshake?
    var attempt: (any LinkAttempt)?
    var connectedAt: NIODeadline?
    /// ``ConnectionDriver/timeSlept`` when the session was accepted.
    var sleptBefore = TimeAmount.zero
    /// When the last packet of an accepted session came.
    private(set) var heardAt: NIODeadline?
    var info: ConnectionInfo?
    /// The info that the app was told last.
    var announced: ConnectionInfo?
    /// Path changes asked for since the last packet came.
    var probes = 0
    /// When the path was asked last, since packets would leave by another.
    var askedAt: NIODeadline?
    /// The server's last word, if it had one.
    var farewell: Close?
    private var driver: ConnectionDriver?

    init(
        driver: ConnectionDriver, accessPoint: AccessPoint, isMigrationSafe: Bool, credential: Credential,
        startedAt: NIODeadline, usedSessionTicket: Bool
    ) {
        self.driver = driver
        self.accessPoint = accessPoint
        self.isMigrationSafe = isMigrationSafe
        self.credential = credential
        self.startedAt = startedAt
        self.usedSessionTicket = usedSessionTicket
    }

    var usedResumeTicket: Bool {
        if case .ticket = credential { return true }
        return false
    }

    var mobile: (any MobileLink)? { link as? any MobileLink }

    /// The same, also before the link exists.
    var transport: (any MobileLink)? { mobile ?? attempt as? any MobileLink }

    /// Whether a packet of the server's came. A Retry is none: nothing vouches for it.
    var isAnswered: Bool { handshake != nil || transport?.linkStatistics.map { $0.packetsReceived > 0 } ?? false }

    /// Whether anything left. A transport that counts nothing is taken for one that sends at once.
    var wasSent: Bool { transport.map { ($0.linkStatistics?.packetsSent ?? 0) > 0 } ?? true }

    /// The driver, while this is its current link.
    private var current: ConnectionDriver? { driver?.current === self ? driver : nil }

    /// Gives the attempt or the link up without a farewell.
    func abandon() {
        attempt?.abandon()
        attemptFailed()
    }

    /// No link came of it.
    func attemptFailed() {
        attempt = nil
        driver = nil
    }

    func linkEstablished(_ link: any Link) {
        guard let driver = current else { return link.close(.normal, reason: "given up") }
        self.link = link
        driver.linkEstablished(self)
    }

    func handshakeCompleted(_ link: any Link, info: LinkHandshake) {
        handshake = info
        driver?.handshakeEnded(at: accessPoint)
    }

    func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link) {
        guard let driver = current else { return }
        driver.session.received(frame, lane: lane, now: driver.clock.now())
    }

    func receivedDatagram(_ frame: Frame, link: any Link) {
        guard let driver = current else { return }
        driver.session.receivedDatagram(frame, now: driver.clock.now())
    }

    func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link) {
        guard let driver = current else { return }
        driver.session.receivedInvalid(error.close, lane: lane, now: driver.clock.now())
    }

    func laneFinished(_ lane: LaneID, link: any Link) {
        guard let driver = current else { return }
        driver.session.laneFinished(lane, now: driver.clock.now())
    }

    func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link) {
        guard let driver = current else { return }
        driver.session.laneWritable(lane, writable, now: driver.clock.now())
    }

    func laneStopped(_ lane: LaneID, link: any Link) {
        guard let driver = current else { return }
        driver.session.receivedInvalid(.laneStopped, lane: lane, now: driver.clock.now())
    }

    func packetReceived(_ link: any Link) {
        guard let driver = current else { return }
        probes = 0
        driver.noticeTime()
        let now = driver.clock.now()
        if connectedAt != nil { heardAt = now }
        driver.session.packetReceived(now: now)
    }

    func pathChanged(_ link: any Link) {
        guard let driver = current else { return }
        driver.pathChanged(self)
    }

    func sessionTicketReceived(_ ticket: [UInt8], link: any Link) {
        driver?.keepTransportTicket(ticket, for: accessPoint)
    }

    func addressTokenReceived(_ token: [UInt8], link: any Link) {
        driver?.keepAddressToken(token, for: accessPoint)
    }

    func batchEnded(_ link: any Link) {
        guard let driver = current else { return }
        driver.pump()
    }

    func linkClosed(_ link: any Link, reason: LinkCloseReason) {
        let driver = driver
        self.driver = nil
        driver?.linkClosed(self, reason: reason)
    }
}
