import LonglineWire
import NIOCore

/// What goes wrong in few runs.
extension SessionSimulation {
    func rarely(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &rare) }

    /// A device that was restored at a time is restored again soon: from the same backup, or from one of its second life.
    func restoreAgain(_ device: ModelDevice, since time: Int64) {
        let again = time + rarely(100...500)
        if rare.happens(0.4) {
            scheduler.after(.milliseconds(rarely(time + 20...again - 20))) { device.takeBackup() }
        }
        scheduler.after(.milliseconds(again)) { [weak self] in
            self?.counts.restores += 1
            self?.counts.secondRestores += 1
            device.restart(.fromBackup)
        }
    }
}
