import LonglineWire

/// Retention and the sweep.
extension StoreLogic {
    /// - Returns: whether more is left to remove.
    func trim(_ key: ChannelKey, keep: Retention) throws -> Bool {
        guard var channel = try tables.channel(key) else { return false }
        let now = clock()
        let oldest = try tables.oldest(in: channel, limit: limits.trimEntries + 1)
        var cut = 0
        for entry in oldest {
            let isTooOld = keep.age.map { now > entry.time && now - entry.time > $0 } ?? false
            let isTooMany = keep.entries.map { channel.entries > $0 } ?? false
            let isTooMuch = keep.bytes.map { channel.bytes > $0 } ?? false
            guard isTooOld || isTooMany || isTooMuch else { break }
            guard cut < limits.trimEntries else { return try remove(cut, of: oldest, channel, more: true) }
            cut += 1
            channel.entries -= 1
            channel.bytes -= entry.bytes
            channel.first = entry.offset
        }
        return try remove(cut, of: oldest, channel, more: false)
    }

    private func remove(_ cut: Int, of oldest: [EntrySummary], _ channel: ChannelRecord, more: Bool) throws -> Bool {
        guard cut > 0 else { return more }
        assert(channel.first <= channel.head && channel.entries >= 0 && channel.bytes >= 0)
        try tables.removeEntries(in: channel, through: oldest[cut - 1].offset)
        try tables.update(channel)
        return more
    }

    func sweep() throws -> SweepReport {
        let now = clock()
        let limit = now > limits.unseen ? now - limits.unseen : 0
        return SweepReport(
            devices: try tables.removeDevices(unseenSince: limit),
            producers: try tables.removeProducers(unseenSince: limit),
            tokens: try tables.removeTokens(expiredAt: now))
    }
}
