import LonglineWire

/// What a sweep goes through, in this order: an inbox is somebody's as long as a device of its user is there, and what hangs on
/// removed channels is collected behind them.
enum SweepStage: Int, CaseIterable, Sendable {
    case presence, devices, outboxes, tokens, channels, ledgers, cursors, conversations, stints

    var next: SweepStage? { SweepStage(rawValue: rawValue + 1) }
}

/// A place in the order of a table's primary key: its names, then its numbers. Without either it is the beginning.
struct SweepMark: Hashable, Sendable {
    var names: [String] = []
    var numbers: [Int64] = []
}

/// What goes, and how much of it in one step.
struct SweepRule {
    /// Devices, outboxes, presence and channels from before go; in milliseconds since 1970.
    var unseenSince: UInt64
    /// Revoked tokens that expired until then go.
    var expiredAt: UInt64
    /// The rows that a step looks at, and about as many it removes.
    var rows: Int
}

/// What one step of a stage did.
struct SweepStep {
    /// Of what the stage is named after.
    var removed: Int
    /// Where the next step of the stage begins, or nil when it is through.
    var next: SweepMark?
}

extension StoreLogic {
    func sweep(from place: SweepPlace?) throws -> SweepReport {
        let now = clock()
        let rule = SweepRule(
            unseenSince: now > limits.unseen ? now - limits.unseen : 0,
            expiredAt: now > StoreLimits.largestTokenSkew ? now - StoreLimits.largestTokenSkew : 0,
            rows: max(limits.trimEntries, 1))
        let place = place ?? SweepPlace(stage: .presence)
        let step = try tables.sweep(place.stage, after: place.mark, rule)
        var report = SweepReport()
        switch place.stage {
        case .devices: report.devices = step.removed
        case .outboxes: report.producers = step.removed
        case .tokens: report.tokens = step.removed
        case .channels: report.channels = step.removed
        case .presence, .ledgers, .cursors, .conversations, .stints: break
        }
        if let mark = step.next {
            report.next = SweepPlace(stage: place.stage, mark: mark)
        } else {
            report.next = place.stage.next.map { SweepPlace(stage: $0) }
        }
        return report
    }
}
