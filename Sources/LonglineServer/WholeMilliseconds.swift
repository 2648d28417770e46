import LonglineWire

extension Duration {
    /// Milliseconds, rounded down; 0 for less than none, and ``/LonglineWire/FrameLimits/maximumNumber`` at most: what a clock says and
    /// some of them are less than 64 bits hold.
    package var wholeMilliseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let (milliseconds, isOver) = UInt64(seconds).multipliedReportingOverflow(by: 1_000)
        guard !isOver, milliseconds < FrameLimits.maximumNumber else { return FrameLimits.maximumNumber }
        return min(milliseconds + UInt64(attoseconds / 1_000_000_000_000_000), FrameLimits.maximumNumber)
    }
}
