import LonglineWire

/// The sweep. Here nobody waits for the writer: a step is a whole stage, but for channels.
extension MemoryTables {
    func sweep(_ stage: SweepStage, after mark: SweepMark, _ rule: SweepRule) -> SweepStep {
        switch stage {
        case .presence:
            presences = presences.filter {
                $0.value.lastSeen >= rule.unseenSince || $0.value.visibility != .everything
            }
            return SweepStep(removed: 0, next: nil)
        case .devices: return SweepStep(removed: removeDevices(unseenSince: rule.unseenSince), next: nil)
        case .outboxes: return SweepStep(removed: removeProducers(unseenSince: rule.unseenSince), next: nil)
        case .tokens:
            let before = tokens.count
            tokens = tokens.filter { $0.value > rule.expiredAt }
            return SweepStep(removed: before - tokens.count, next: nil)
        case .channels: return removeEmptyChannels(rule)
        // What hangs on a channel went with it.
        case .ledgers, .cursors, .conversations, .stints: return SweepStep(removed: 0, next: nil)
        }
    }

    private func removeDevices(unseenSince time: UInt64) -> Int {
        let gone = devices.values.filter { $0.seen < time }
        let ids = Set(gone.map(\.id))
        for device in gone {
            devices[device.key] = nil
            cursors[device.id] = nil
        }
        removeProducers { key, _ in ids.contains(key.device) }
        return gone.count
    }

    private func removeProducers(unseenSince time: UInt64) -> Int {
        let gone = removeProducers { _, record in record.seen < time }
        for (key, device) in devices {
            let count = gone.count { $0.device == device.id }
            if count > 0 { devices[key]?.producers -= count }
        }
        return gone.count
    }

    @discardableResult
    private func removeProducers(where isGone: (ProducerKey, ProducerRecord) -> Bool) -> [ProducerKey] {
        let gone = producers.filter(isGone)
        let ids = Set(gone.values.map(\.id))
        for key in gone.keys { producers[key] = nil }
        ledgers = ledgers.filter { !ids.contains($0.key.producer) }
        return Array(gone.keys)
    }

    private func removeEmptyChannels(_ rule: SweepRule) -> SweepStep {
        let gone = channels.values.filter {
            $0.entries == 0 && $0.members == 0 && $0.time < rule.unseenSince && isUnused($0)
        }
        for channel in gone.prefix(rule.rows) {
            ledgers = ledgers.filter { $0.key.channel != channel.id }
            for device in cursors.keys { cursors[device]?[channel.id] = nil }
            for user in stintsByUser.keys { forgetStay(of: user, in: channel) }
            (membersByRoom[channel.id], deletionsByRoom[channel.id]) = (nil, nil)
            conversations[channel.id] = nil
            remove(channel)
        }
        return SweepStep(removed: min(gone.count, rule.rows), next: gone.count > rule.rows ? SweepMark() : nil)
    }

    private func forgetStay(of user: UserKey, in room: ChannelRecord) {
        guard stintsByUser[user]?.removeValue(forKey: room.id) != nil,
            let inbox = channels[ChannelKey(tenant: user.tenant, channel: .user(user.user))],
            let known = conversation(room.key.channel, of: inbox), !known.hasSettings
        else { return }
        removeConversation(known.name, of: inbox)
    }

    /// Of an inbox: whether its user has no device, no stay and no settings.
    private func isUnused(_ channel: ChannelRecord) -> Bool {
        switch channel.key.channel {
        case .room: return true
        case .all: return false
        case .user(let user):
            let key = UserKey(tenant: channel.key.tenant, user: user)
            return !devices.keys.contains { $0.tenant == key.tenant && $0.user == user }
                && (stintsByUser[key] ?? [:]).isEmpty && countSettings(of: channel) == 0
        }
    }
}
