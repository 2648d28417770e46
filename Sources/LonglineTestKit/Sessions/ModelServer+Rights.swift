import LonglineSession
import LonglineStore
import LonglineWire

/// What credentials allow in a simulation, and what CONNECTED has to say.
extension ModelServer {
    /// What a user's credential allows now.
    struct Rights {
        var mayPublish: Bool
        /// Channels of which it gets nothing.
        var stopped: Set<ChannelID>
        private let rooms: [ChannelID]
        private let isIgnored: Bool

        init(of user: UserID, in simulation: SessionSimulation) {
            mayPublish = !simulation.isWithoutScope(user)
            stopped = simulation.stoppedChannels(of: user)
            rooms = simulation.rooms.map { .room($0) } + [.user(user), .all(simulation.news)]
            isIgnored = simulation.faults.contains(.deliverWithoutRight)
        }

        private var receivesAll: Bool { stopped.isEmpty || isIgnored }

        func apply(to identity: inout SessionIdentity) {
            identity.mayPublish = mayPublish
            identity.mayReceive = receivesAll
            identity.grants = []
            // Everybody may publish to all.
            if mayPublish, let all = ChannelPattern("all/*") { identity.grants.append(ChannelGrant(.publish, all)) }
            guard !receivesAll else { return }
            for channel in rooms where !stopped.contains(channel) {
                if let pattern = ChannelPattern(channel.description) {
                    identity.grants.append(ChannelGrant(.receive, pattern))
                }
            }
        }
    }

    /// A session's credential is another one from now on.
    func apply(_ rights: Rights, to hosted: Hosted) {
        let back = hosted.watch.stopped.subtracting(rights.stopped)
        hosted.watch.stopped = rights.stopped
        guard store.faults.contains(.forgetWhatCameMeanwhile) else { return }
        for channel in back { hosted.leftOut[channel] = store.truth.logs[channel]?.head.offset }
    }

    /// What CONNECTED has to say of each channel, by the truth and the places that the device and the store name.
    func recoveries(
        _ channels: [SessionChannel], _ connect: Connect, _ hosted: Hosted, _ rights: Rights
    ) -> [ChannelID: Recovery] {
        guard let user = hosted.user, let device = hosted.device else { return [:] }
        let claims = Dictionary(
            connect.cursors.map { ($0.channel, $0.position) }, uniquingKeysWith: { first, _ in first })
        var expected: [ChannelID: Recovery] = [:]
        for channel in channels where !rights.stopped.contains(channel.channel) {
            func recovery(of cursor: Position?) -> Recovery {
                store.truth.recovery(of: cursor, in: channel.channel, epoch: channel.head.epoch, user, device)
            }
            let claim = claims[channel.channel]
            guard claim == nil, hosted.namesAll, channel.cursor != nil else {
                expected[channel.channel] = recovery(of: claim ?? channel.cursor)
                continue
            }
            // The device says that it has nothing of it, whatever the record says: it begins anew, and hears of what is gone.
            let anew = recovery(of: Position(epoch: channel.head.epoch, offset: 0))
            expected[channel.channel] = anew == .recovered ? .fresh : anew
        }
        return expected
    }

    /// Compares what CONNECTED says with what it has to say. Which channels it lists where there are more than it has room for is
    /// the server's affair.
    func check(_ connected: Connected, _ hosted: Hosted) {
        let said = Dictionary(
            connected.channels.map { ($0.channel, $0.recovery) }, uniquingKeysWith: { first, _ in first })
        let isFull = said.count == min(hosted.answers, hosted.recoveries.count)
        if !isFull || said.count != connected.channels.count {
            simulation.violation("CONNECTED lists \(connected.channels.count) of \(hosted.recoveries.count) channels")
        }
        let listed = isFull ? Set(said.keys) : Set(said.keys).union(hosted.recoveries.keys)
        for channel in listed.sorted(by: { $0.description < $1.description })
        where said[channel] != hosted.recoveries[channel] {
            let words = [said[channel], hosted.recoveries[channel]].map { $0.map { "\($0)" } ?? "nothing" }
            simulation.violation("CONNECTED says \(words[0]) of \(channel), and not \(words[1])")
        }
    }

    /// A page of history, later.
    func readHistory(_ read: HistoryRead, _ hosted: Hosted) {
        later(hosted) { [weak self] in
            guard let self else { return }
            guard let page = store.page(read, for: hosted.user) else {
                return input(hosted) { $0.historyFailed(read.request, code: .overloaded, retryAfter: 1_000, now: $1) }
            }
            input(hosted) { $0.historyRead(read.request, page: page, now: $1) }
        }
    }
}
