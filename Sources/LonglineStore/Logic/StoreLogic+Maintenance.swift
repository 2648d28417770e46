import LonglineWire

/// Retention.
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
}
