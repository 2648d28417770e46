import LonglineWire

/// Retention.
extension StoreLogic {
    func trim(_ key: ChannelKey, keep: Retention) throws -> TrimReport {
        guard var channel = try tables.channel(key) else { return TrimReport() }
        let now = clock()
        let oldest = try tables.oldest(in: channel, limit: limits.trimEntries + 1)
        var report = TrimReport()
        let hasMarks = try keep.age != nil && tables.lastClockMark() != nil
        for entry in oldest {
            let isDoubtful = keep.age != nil && (hasMarks || ClockMark.isAhead(entry.time, now))
            let time = isDoubtful ? try written(entry, now: now) : entry.time
            guard keep.removes(time: time, entries: channel.entries, bytes: channel.bytes, now: now) else {
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

    /// When an entry was written, at the latest.
    ///
    /// Its own time may be one that the clock had not reached: the clock was ahead then, or had been before in the same channel,
    /// whose times never go back. Such an entry is as old as the first mark of the clock behind it, also when that time has come.
    private func written(_ entry: EntrySummary, now: UInt64) throws -> UInt64 {
        if let mark = try tables.clockMark(from: entry.offset), mark <= now { return min(entry.time, mark) }
        guard ClockMark.isAhead(entry.time, now) else { return entry.time }
        try markClock(now)
        return now
    }

    /// Remembers that all that was written until now was, unless that was done lately.
    func markClock(_ now: UInt64) throws {
        if let last = try tables.lastClockMark(), last <= now, now - last < ClockMark.step { return }
        try tables.markClock(now)
    }
}
