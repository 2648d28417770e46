import LonglineStore
import LonglineWire
import NIOCore

/// What goes wrong in few runs.
extension SessionSimulation {
    func rarely(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &rare) }

    private func rarely(_ milliseconds: ClosedRange<Int64>, _ body: @escaping (SessionSimulation) -> Void) {
        scheduler.after(.milliseconds(rarely(milliseconds))) { [weak self] in
            guard let self, !isCalm else { return }
            body(self)
            rarely(milliseconds, body)
        }
    }

    /// Each of these happens in some runs, a few times.
    func rareChaos() {
        let user = devices[3].user
        if policy(of: user) == .onePerPlatform {
            scheduler.after(.milliseconds(rarely(200...1_500))) { [weak self] in
                guard let self else { return }
                counts.otherPhones += 1
                addDevice(user, otherPhone, login: nextLogin(of: user, after: 0)).connect()
            }
        }
        if rare.happens(0.2) { rarely(100...1_500) { $0.jumpClock() } }
        if rare.happens(0.25) { rarely(50...800) { $0.block() } }
        if rare.happens(0.2) { scheduler.after(.milliseconds(rarely(100...1_700))) { [weak self] in self?.fillDisk() } }
    }

    /// The server's clock goes minutes, hours or days wrong, for a moment or for good.
    private func jumpClock() {
        counts.clockJumps += 1
        let unit = [60_000, 3_600_000, 86_400_000][Int(rarely(0...2))] as Int64
        let jump = unit * rarely(1...9) * (rare.happens(0.5) ? 1 : -1)
        note { "the clock is set by \(jump) ms" }
        setClock(by: jump)
        guard rare.happens(0.7) else { return }
        scheduler.after(.milliseconds(rarely(10...600))) { [weak self] in self?.setClock(by: -jump) }
    }

    /// A user blocks another for a while.
    private func block() {
        let users = [devices[0].user, devices[2].user, devices[3].user]
        let first = Int(rarely(0...2))
        let (user, other) = (users[first], users[(first + Int(rarely(1...2))) % users.count])
        counts.blocks += 1
        note { "\(user) blocks \(other)" }
        store.block(other, by: user, true)
        scheduler.after(.milliseconds(rarely(50...1_000))) { [weak self] in
            self?.note { "\(user) blocks \(other) no more" }
            self?.store.block(other, by: user, false)
        }
    }

    /// The server's disk takes nothing for a while.
    private func fillDisk() {
        counts.fullDisks += 1
        note { "the disk is full" }
        server.isDiskFull = true
        scheduler.after(.milliseconds(rarely(30...600))) { [weak self] in
            self?.note { "the disk has room again" }
            self?.server.isDiskFull = false
        }
    }

    /// A rule for what a trim keeps: mostly so many entries.
    func retention(entries: Int) -> Retention {
        guard rare.happens(0.5) else { return Retention(entries: entries) }
        counts.otherTrims += 1
        let (age, bytes) = (UInt64(rarely(20...1_500)), Int(rarely(0...8_000)))
        switch rarely(0...2) {
        case 0: return Retention(age: age)
        case 1: return Retention(bytes: bytes)
        default: return Retention(age: age, entries: entries, bytes: bytes)
        }
    }

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

    /// In the end each user has so many unread direct messages as are there: blocks, retractions, retention and erasures left no other
    /// count.
    func checkUnread() {
        for user in Set(devices.map(\.user)).sorted(by: { $0.description < $1.description }) {
            for problem in store.unreadProblems(of: user) { violation(problem) }
        }
    }
}
