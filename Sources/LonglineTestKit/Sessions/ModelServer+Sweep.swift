import LonglineStore

/// Sweeps of what nobody has used for long.
extension ModelServer {
    /// Sweeps the store, step by step. What a process that dies does not get to is left to the next sweep.
    func sweep() { sweep(from: nil) }

    private func sweep(from place: SweepPlace?) {
        guard !isDiskFull else { return soon(20...80) { $0.sweep(from: place) } }
        guard let report = write({ store.sweep(from: place) }) else { return }
        simulation.counts.sweptDevices += report.devices
        simulation.counts.sweptChannels += report.channels
        guard let next = report.next else { return }
        soon(0...6) { $0.sweep(from: next) }
    }
}
