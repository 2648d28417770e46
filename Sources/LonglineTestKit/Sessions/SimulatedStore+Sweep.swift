import LonglineStore
import LonglineWire

/// Sweeps of what nobody has used for long, and what is noted of use until then.
extension SimulatedStore {
    /// What is unused for longer goes, in milliseconds.
    static let unseen = StoreLimits().unseen
    /// That a device publishes may be noted this much later, in milliseconds.
    private static let step: UInt64 = 24 * 3_600 * 1_000

    // MARK: Use

    func noteUse(of request: AppendRequest, _ outcome: AppendOutcome) {
        let now = wall.milliseconds
        var noted: UInt64 = 0
        if case .entered = outcome, now > Self.step { noted = now - Self.step }
        truth.use(request.device, request.producer, at: now, surely: noted)
    }

    func noteUse(of device: DeviceKey, _ producer: ProducerID, _ admission: ConnectAdmission?) {
        guard admission != .erasing else { return }
        let now = wall.milliseconds
        let isNoted = admission != nil && admission != .stale
        truth.use(device, producer, at: now, surely: isNoted ? now : 0)
    }

    // MARK: Sweeps

    /// Takes a step of a sweep, and compares what is gone then with what had to go.
    func sweep(from place: SweepPlace?) -> SweepReport {
        let now = wall.milliseconds
        let since = now > Self.unseen ? now - Self.unseen : 0
        switch SingleThreadedStore.part(at: place) {
        case .devices: return sweepDevices(from: place, since)
        case .outboxes: return sweepOutboxes(from: place, since)
        case .channels: return sweepChannels(from: place, since)
        case .others: return takeStep(from: place)
        }
    }

    private func takeStep(from place: SweepPlace?) -> SweepReport {
        let now = wall.milliseconds
        if faults.contains(.sweepUsed) { wall.set(now + Self.unseen + 1) }
        defer { if faults.contains(.sweepUsed) { wall.set(now) } }
        guard let report = try? real.sweep(from: place) else {
            violation("a sweep failed")
            return SweepReport()
        }
        return report
    }

    /// The devices of which the store has a record, in one order.
    private var knownDevices: [DeviceKey] {
        truth.uses.keys.filter { real.knows($0) }
            .sorted { ($0.user.description, $0.device.description) < ($1.user.description, $1.device.description) }
    }

    private func check(_ use: Use?, isGone: Bool, _ since: UInt64, _ name: @autoclosure () -> String) {
        guard let use else { return }
        if isGone, use.surely >= since { violation("\(name()) is swept, and was used since \(since)") }
        if !isGone, use.perhaps < since { violation("\(name()) is kept by a sweep, and was not used since \(since)") }
    }

    private func sweepDevices(from place: SweepPlace?, _ since: UInt64) -> SweepReport {
        let known = knownDevices
        let report = takeStep(from: place)
        for device in known {
            let isGone = !real.knows(device)
            check(truth.uses[device]?.device, isGone: isGone, since, "\(device.device) of \(device.user)")
            if isGone { truth.end(device) }
        }
        return report
    }

    private func sweepOutboxes(from place: SweepPlace?, _ since: UInt64) -> SweepReport {
        let known = knownDevices.flatMap { device in
            (truth.uses[device]?.outboxes ?? [:]).keys.filter { real.knows($0, of: device) }.map { (device, $0) }
        }
        let report = takeStep(from: place)
        for (device, producer) in known {
            let isGone = !real.knows(producer, of: device)
            let use = truth.uses[device]?.outboxes[producer]
            check(use, isGone: isGone, since, "an outbox of \(device.device) of \(device.user)")
            if isGone { truth.sweep(producer, of: device) }
        }
        return report
    }

    private func sweepChannels(from place: SweepPlace?, _ since: UInt64) -> SweepReport {
        let users = Set(knownDevices.map(\.user))
        let inboxes = Set(truth.uses.keys.map { ChannelID.user($0.user) })
        let known = inboxes.union(truth.logs.keys).filter { real.ends(of: key($0)) != nil }
            .sorted { $0.description < $1.description }
        let unused = known.filter { channel in
            var hasDevices = false
            if case .user(let user) = channel { hasDevices = users.contains(user) }
            return truth.isUnused(channel, since: since, hasDevices: hasDevices)
        }
        let report = takeStep(from: place)
        let isThrough = SingleThreadedStore.part(at: report.next) != .channels
        for channel in known {
            let isGone = real.ends(of: key(channel)) == nil
            if isGone, !unused.contains(channel) { violation("\(channel) is swept, and is somebody's") }
            if !isGone, isThrough, unused.contains(channel) { violation("\(channel) is kept by a sweep, and unused") }
            if isGone { truth.sweep(channel) }
        }
        return report
    }
}
