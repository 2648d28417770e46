import LonglineWire

/// Retention and the sweep.
extension StoreLogic {
    func trim(_ key: ChannelKey, keep: Retention) throws -> TrimReport {
        guard var channel = try tables.channel(key) else { return TrimReport() }
        let now = clock()
        let oldest = try tables.oldest(in: channel, limit: limits.trimEntries + 1)
        var report = TrimReport()
        for entry in oldest {
            guard keep.removes(time: entry.time, entries: channel.entries, bytes: channel.bytes, now: now) else {
                break
            }
            guard report.entries < limits.trimEntries, report.bytes < limits.trimBytes else {
                report.more = true
                break
            }
            report.entries += 1
            report.bytes += entry.bytes
            channel.entries -= 1
            channel.bytes -= entry.bytes
            channel.first = entry.offset
            if let sender = entry.incomingFrom { try forgetUnread(entry.offset, from: sender, in: channel) }
        }
        guard report.entries > 0 else { return report }
        assert(channel.first <= channel.head && channel.entries >= 0 && channel.bytes >= 0)
        try tables.removeEntries(in: channel, through: channel.first)
        try tables.update(channel)
        return report
    }

    /// Who verifies tokens takes them for so long after they expired, at most, in milliseconds: until then it has to be known which
    /// were revoked.
    static var largestSkew: UInt64 { 3_600_000 }

    func sweep() throws -> SweepReport {
        let now = clock()
        let limit = now > limits.unseen ? now - limits.unseen : 0
        try tables.removePresence(unseenSince: limit)
        var report = SweepReport(
            devices: try tables.removeDevices(unseenSince: limit),
            producers: try tables.removeProducers(unseenSince: limit),
            tokens: try tables.removeTokens(expiredAt: now > Self.largestSkew ? now - Self.largestSkew : 0))
        // Behind the devices: an inbox is somebody's as long as there is one.
        report.channels = try tables.removeEmptyChannels(unusedSince: limit, limit: limits.trimEntries)
        report.more = report.channels == limits.trimEntries
        return report
    }
}
