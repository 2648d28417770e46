import LonglineStore
import LonglineWire
import NIOCore

/// In few runs nobody is there for half a year, neither the service nor its users, and what was unused for so long is swept then, while
/// some come back.
extension SessionSimulation {
    private func drawIdle(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &idle) }

    func idleChaos() {
        guard idle.happens(0.15) else { return }
        scheduler.after(.milliseconds(drawIdle(300...1_400))) { [weak self] in
            guard let self, !isCalm else { return }
            passHalfYear()
        }
    }

    private func passHalfYear() {
        counts.halfYears += 1
        note { "nobody is there for half a year" }
        // Without it nothing can be left in a room or an inbox that is swept.
        let isLeft = idle.happens(0.75)
        let isEmpty = idle.happens(0.6)
        server.restart()
        loseLinks()
        firstOrder = nextOrder
        checker.services.keysExpired()
        if isLeft {
            for room in rooms { leave(room) }
            for time in [drawIdle(200...400), drawIdle(500...900)] {
                scheduler.after(.milliseconds(time)) { [weak self] in self?.joinAgain() }
            }
        }
        let users = [devices[0].user, devices[2].user, devices[3].user, shop]
        for user in users where idle.happens(0.7) { store.trim(.user(user), keep: Retention(entries: 0)) }
        setClock(by: Int64(SimulatedStore.unseen) + 86_400_000 * drawIdle(2...90))
        let absent = users[Int(drawIdle(0...2))]
        for device in devices {
            let earliest: Int64 = device.user == absent ? 400 : isEmpty ? 120 : 0
            checker.mayBeJudgedAnew(device.waitingNumbers)
            device.stayAway(for: .milliseconds(earliest + drawIdle(0...300)))
        }
        // An inbox can go once its user's rooms are gone, so with the second at the earliest.
        for time in [drawIdle(0...20), drawIdle(60...90), drawIdle(120...600)] {
            scheduler.after(.milliseconds(time)) { [weak self] in self?.server.sweep() }
        }
    }

    /// Somebody deletes a room, and retention takes what was in it.
    private func leave(_ room: RoomID) {
        let channel = ChannelID.room(room)
        let owner = store.truth.rooms[channel]?.owners.min { $0.description < $1.description }
        if let owner, let device = names(of: owner).first {
            _ = store.change(room, .act(.delete), user: owner, device: device)
        }
        store.trim(channel, keep: Retention(entries: 0))
    }

    private func joinAgain() {
        for device in devices { device.changeRoom(rooms[Int(drawIdle(0...1))], joins: true) }
    }
}
