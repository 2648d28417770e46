import LonglineStore

/// One walk over all channels that removes what the policy does not keep.
///
/// Publishing goes on meanwhile: a channel that has nothing to remove costs a part of one read, a removal is a transaction
/// of ``StoreLimits/trimEntries`` entries and about ``StoreLimits/trimBytes`` at most, and after each the sweep rests: see
/// ``UpkeepPace``.
struct RetentionSweep: Sendable {
    let store: any StoreMaintenance
    let policy: RetentionPolicy
    /// The wall clock, in milliseconds since 1970.
    let time: @Sendable () -> UInt64
    var pace = UpkeepPace()

    /// Channels in one read of the list.
    static let channelsPerTurn = 256

    /// Walks over all channels; returns early when its task is cancelled.
    /// - Parameters:
    ///   - progress: told what each turn did.
    ///   - goesByAge: asked before anything is removed: whether the clock can be believed.
    func run(
        _ progress: (RetentionReport) -> Void, goesByAge: () -> Bool = { true }
    ) async throws(StoreError) {
        var mark: UInt64? = policy.keepsAll ? nil : 0
        while let begin = mark {
            let (list, took) = try await pace.timed { () async throws(StoreError) in
                try await store.channels(after: begin, limit: Self.channelsPerTurn)
            }
            var turn = RetentionReport()
            turn.channels = list.channels.count
            progress(turn)
            guard await pace.rests(took) else { return }
            for channel in list.channels {
                let rule = policy.rule(for: channel.key.channel)
                guard rule.removesSome(of: channel, now: time()) else { continue }
                // Of a clock that was set, all channels seem old.
                guard rule.reckoned(goesByAge()).removesSome(of: channel, now: time()) else { continue }
                guard try await trim(channel.key, rule, progress, goesByAge) else { return }
            }
            mark = list.next
        }
    }

    /// - Returns: false when the sweep is cancelled.
    private func trim(
        _ channel: ChannelKey, _ rule: Retention, _ progress: (RetentionReport) -> Void, _ goesByAge: () -> Bool
    ) async throws(StoreError) -> Bool {
        var isFirst = true
        while true {
            let kept = rule.reckoned(goesByAge())
            let (step, took) = try await pace.timed { () async throws(StoreError) in
                try await store.trim(channel, keep: kept)
            }
            var turn = RetentionReport()
            turn.trimmed = isFirst && step.entries > 0 ? 1 : 0
            turn.entries = step.entries
            turn.bytes = step.bytes
            progress(turn)
            isFirst = false
            guard await pace.rests(took) else { return false }
            if !step.more { return true }
        }
    }
}

extension Retention {
    /// The same, without the age where that can't be told.
    fileprivate func reckoned(_ goesByAge: Bool) -> Retention {
        goesByAge ? self : Retention(entries: entries, bytes: bytes)
    }
}

extension RetentionReport {
    mutating func add(_ other: RetentionReport) {
        channels += other.channels
        trimmed += other.trimmed
        entries += other.entries
        bytes += other.bytes
    }
}
