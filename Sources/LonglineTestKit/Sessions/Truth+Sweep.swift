import LonglineStore
import LonglineWire

/// When a device was used, and each of its outboxes.
struct DeviceUse {
    var device = Use()
    var outboxes: [ProducerID: Use] = [:]
}

/// When something was last used, by what the clock showed.
struct Use {
    /// It is noted as used then, or later.
    var surely: UInt64 = 0
    /// It is noted as used then, or earlier.
    var perhaps: UInt64 = 0

    mutating func note(_ time: UInt64, surely noted: UInt64) {
        perhaps = max(perhaps, time)
        surely = max(surely, noted)
    }
}

/// The publishes that the same ledgers know of: in another era these know nothing of what was entered before.
struct LedgerEra: Hashable {
    /// How often a sweep had taken the log, and the device or an outbox of it.
    var log = 0
    var device = 0
}

/// What a sweep has to take, and may.
extension Truth {
    /// A device does something, and an outbox of it.
    /// - Parameter noted: since when it is noted as seen, at the least.
    mutating func use(_ device: DeviceKey, _ producer: ProducerID?, at time: UInt64, surely noted: UInt64 = 0) {
        uses[device, default: DeviceUse()].device.note(time, surely: noted)
        if let producer { uses[device]?.outboxes[producer, default: Use()].note(time, surely: noted) }
    }

    /// Whether a channel has to go: nothing is left in it, nothing was entered for long, and it is nobody's.
    /// - Parameter hasDevices: whether its user has a device, of an inbox.
    func isUnused(_ channel: ChannelID, since time: UInt64, hasDevices: Bool) -> Bool {
        if let log = logs[channel] {
            guard log.entries(above: log.first).isEmpty, log.entries.last?.time ?? 0 < time else { return false }
        }
        switch channel {
        case .all: return false
        case .room: return rooms[channel]?.members.isEmpty ?? true
        case .user(let user): return !hasDevices && !hasStay(user) && blocks[user]?.isEmpty ?? true
        }
    }

    /// A sweep took a channel: made again, it begins a new life, and ledgers know nothing of what was in it.
    mutating func sweep(_ channel: ChannelID) {
        end(channel)
        lives[channel, default: 0] += 1
    }

    /// A sweep took an outbox: nothing is known of what it published.
    mutating func sweep(_ producer: ProducerID, of device: DeviceKey) {
        uses[device]?.outboxes[producer] = nil
        eras[device.user, default: [:]][device.device, default: 0] += 1
    }

    func era(of entry: Entry, in log: Log) -> LedgerEra {
        LedgerEra(log: log.life, device: log.eras[entry.offset] ?? 0)
    }

    /// The present one.
    func era(of user: UserID, _ device: DeviceID, in channel: ChannelID) -> LedgerEra {
        LedgerEra(log: lives[channel] ?? 0, device: eras[user]?[device] ?? 0)
    }
}
