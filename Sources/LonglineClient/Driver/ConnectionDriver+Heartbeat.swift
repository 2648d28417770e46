import Logging
import LonglineSession
import LonglineWire
import NIOCore

/// What the heartbeat learned, kept for each network, and what the app is to its user.
extension ConnectionDriver {
    func setMode(_ mode: SessionMode) {
        session.setMode(mode, now: clock.now())
        core?.sharing?.looks.setMode(mode)
        // The user is there: what back-off spares nobody misses now.
        if mode == .foreground { connectNow(forUser: true) }
        pump()
    }

    func setUrgency(_ urgency: Urgency, of channel: ChannelID) -> ClientError? {
        guard session.setUrgency(urgency, of: channel, now: clock.now()) else {
            return ClientError(
                .tooManyRequests,
                message: "\(FrameLimits.maximumUrgencies) channels have an urgency of their own already",
                advice: "give a channel that needs none any more back its urgency of chat")
        }
        pump()
        return nil
    }

    /// The app names the network, or leaves it to the local address and the gateway.
    func setNetwork(_ name: String?) {
        // A name of the app never meets a derived one.
        appNetwork = name.map { "app:" + $0 }
        enterNetwork(of: current)
        pump()
    }

    /// Takes up what is known of the network that a link runs in. Without a link the last network stays.
    func enterNetwork(of link: DriverLink?) {
        guard configuration.heartbeat.search != nil else { return }
        let name = appNetwork ?? link?.mobile.flatMap { NetworkName.of($0.localAddress) }
        guard let name, name != network else { return }
        // What was learned up to now belongs to the network before.
        performActions(of: link)
        guard current === link else { return }
        network = name
        let knowledge = networks.knowledge(of: name)
        session.networkChanged(knowledge, now: clock.now())
        if let knowledge { keep(knowledge) }
        logger.debug("network entered", metadata: ["known": "\(knowledge != nil)"])
    }

    /// Keeps what is known of the present network, and that it is in use.
    func keep(_ knowledge: HeartbeatKnowledge) {
        guard let network, let stored = networks.note(knowledge, of: network, at: clock.wall()) else { return }
        pending.networks[network] = stored
        scheduleFlush()
    }
}
