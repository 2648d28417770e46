import LonglineWire

/// Compresses what is read of a log at once: a catch-up of small messages, of which each alone would not shrink.
///
/// ```
///   frames of a page:   d d d d s d  D  d d  G  d d d ...
///                      '--- run ---'    '-'     '------- run
/// ```
/// A run ends at an entry that goes on in parts, at a gap, and where it would be too large for a frame; one that turns out so is
/// halved. Short runs, and runs that don't shrink by an eighth, go as they are; after some of the latter a channel is left alone
/// for a while, as one whose messages are encrypted by the app. ``/LonglineWire/Batch`` says what is compressed together.
struct FrameBatching {
    /// Bytes of frames in a run at most: what compresses to less than a frame holds, as a rule.
    private static let runBytes = 32 << 10
    /// Runs that did not shrink, one after another, before a rest of so many runs.
    private static let patience: UInt8 = 3
    private static let rest: UInt8 = 64

    private var failures: UInt8 = 0
    private var resting: UInt8 = 0

    /// - Parameter least: frames in a run at least; fewer are live traffic.
    /// - Returns: frames that say the same.
    mutating func compress(_ frames: [Frame], least: Int) -> [Frame] {
        guard frames.count >= least else { return frames }
        var result: [Frame] = []
        var run: [Frame] = []
        var bytes = 0
        for frame in frames {
            guard Self.mayBatch(frame), let size = try? FrameEncoder.encodedSize(frame) else {
                finish(run[...], bytes, least, into: &result)
                (run, bytes) = ([], 0)
                result.append(frame)
                continue
            }
            if bytes + size > Self.runBytes {
                finish(run[...], bytes, least, into: &result)
                (run, bytes) = ([], 0)
            }
            bytes += size
            run.append(frame)
        }
        finish(run[...], bytes, least, into: &result)
        return result
    }

    private static func mayBatch(_ frame: Frame) -> Bool {
        switch frame {
        case .deliver(let deliver): deliver.entry.following == 0
        case .skip: true
        default: false
        }
    }

    /// - Parameter bytes: those of the run's frames.
    private mutating func finish(_ run: ArraySlice<Frame>, _ bytes: Int, _ least: Int, into result: inout [Frame]) {
        guard run.count >= least, !isResting() else { return result.append(contentsOf: run) }
        guard let batch = Batch(of: run) else {
            // Halves of what is twice a frame fit when they shrink at all.
            if bytes > FrameLimits.maximumBody, run.count >= 2 * least {
                let middle = run.startIndex + run.count / 2
                finish(run[..<middle], bytes / 2, least, into: &result)
                return finish(run[middle...], bytes / 2, least, into: &result)
            }
            failures += 1
            if failures == Self.patience { (failures, resting) = (0, Self.rest) }
            return result.append(contentsOf: run)
        }
        failures = 0
        result.append(.batch(batch))
    }

    private mutating func isResting() -> Bool {
        guard resting > 0 else { return false }
        resting -= 1
        return true
    }
}
