import LonglineWire
import NIOCore

/// In few runs a user logs out on a device, and another one logs in there, by an app that begins with empty storage.
///
/// Without a logout none does: a client whose storage is another user's sends nothing.
extension SessionSimulation {
    private func drawTurn(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &turns) }

    func switchChaos() {
        guard turns.happens(0.15) else { return }
        scheduler.after(.milliseconds(drawTurn(300...1_600))) { [weak self] in self?.switchUser() }
    }

    private func switchUser() {
        let device = devices[Int(drawTurn(1...2))]
        let others = [devices[0].user, devices[2].user, devices[3].user].filter { $0 != device.user }
        let next = others[Int(drawTurn(0...1))]
        guard !isCalm, !device.isOver, !device.isErased, !device.isLoggingOut, !sharesDevice(device) else { return }
        counts.switches += 1
        note { "\(device.user) logs out on \(device.device), and \(next) in" }
        let name = device.device
        device.logOut { [weak self] left in self?.logIn(next, on: name, left) }
    }

    private func logIn(_ user: UserID, on name: DeviceID, _ left: ModelDevice.Durable) {
        scheduler.after(.milliseconds(drawTurn(0...150))) { [weak self] in
            guard let self else { return }
            let highest = devices.filter { $0.user == user && $0.device == name }.map(\.login).max() ?? 0
            let device = addDevice(user, name, login: nextLogin(of: user, after: highest))
            if faults.contains(.keepStoresOnSwitch) { device.inherit(left) }
            device.connect()
        }
    }

    /// The server knows that the user of a device logged out: its credentials so far are void.
    func revoke(_ name: DeviceName, upTo login: UInt64) {
        for device in devices where device.app.name == name && device.login <= login { device.isRevoked = true }
    }
}
