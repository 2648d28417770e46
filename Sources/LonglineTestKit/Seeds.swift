internal import Foundation

/// The seeds of a randomised test: all of `range`, or its first part where the environment variable
/// `LONGLINE_SEED_DIVISOR` says by how much to divide their number. At least one is left. `scripts/test` sets it for
/// builds with a sanitizer, where each seed takes many times as long.
public func seeds(_ range: Range<UInt64>) -> Range<UInt64> {
    let divisor = ProcessInfo.processInfo.environment["LONGLINE_SEED_DIVISOR"].flatMap(UInt64.init) ?? 1
    guard divisor > 1, !range.isEmpty else { return range }
    return range.lowerBound..<range.lowerBound + max(1, UInt64(range.count) / divisor)
}
