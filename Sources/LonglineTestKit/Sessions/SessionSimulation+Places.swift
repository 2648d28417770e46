import LonglineStore
import LonglineWire

/// How many devices users may have, and who has to have a place.
extension SessionSimulation {
    /// What the logins of some devices of a user compete for.
    struct LoginPlace: Hashable {
        let user: UserID
        /// nil: all platforms together.
        let platform: DevicePlatform?
    }

    /// How many devices a user may have: carol one in every fourth run, and one of each platform in another fourth.
    func policy(of user: UserID) -> DevicePolicy {
        guard user.description == "carol" else { return .all }
        switch seed % 4 {
        case 1: return .onePerPlatform
        case 3: return .one
        default: return .all
        }
    }

    func platform(of device: DeviceID) -> DevicePlatform { device.description.hasSuffix("phone") ? phone : desktop }

    /// The place that a device's login competes for, or nil.
    private func place(of device: DeviceID, _ user: UserID) -> LoginPlace? {
        switch policy(of: user) {
        case .all: nil
        case .onePerPlatform: LoginPlace(user: user, platform: platform(of: device))
        case .one: LoginPlace(user: user, platform: nil)
        }
    }

    /// Whether of two devices of a user only one may be logged in.
    func compete(_ device: DeviceID, _ other: DeviceID, of user: UserID) -> Bool {
        place(of: device, user).map { $0 == place(of: other, user) } ?? false
    }

    /// The number of a user's next deliberate login. Where logins compete one counter numbers those of all devices.
    func nextLogin(of user: UserID, after login: UInt64) -> UInt64 {
        guard policy(of: user) != .all else { return login + 1 }
        return (devices.filter { $0.user == user }.map(\.login).max() ?? login) + 1
    }

    /// A session has its place: nobody may have one afterwards whose login is older.
    func established(_ user: UserID, _ device: DeviceID, login: UInt64) {
        guard let place = place(of: device, user) else { return }
        let highest = highestLogins[place] ?? 0
        if login < highest { violation("a login of \(user) came back that had lost its place") }
        highestLogins[place] = max(login, highest)
    }

    /// In the end the newest login of each place is there, and no other.
    func checkPlaces() {
        for device in devices {
            // Places go with an account.
            guard let place = place(of: device.device, device.user), !store.erasedUsers.contains(device.user) else {
                continue
            }
            let rivals = devices.filter { self.place(of: $0.device, $0.user) == place }
            let isNewest = !rivals.contains { $0.login > device.login }
            if isNewest == device.isOver {
                violation(
                    "\(device.device) of login \(device.login) \(isNewest ? "lost" : "has") \(device.user)'s place")
            }
        }
    }

    func hasLaterLogin(than device: ModelDevice) -> Bool {
        devices.contains { $0.app.name == device.app.name && $0.login > device.login }
    }

    func sharesDevice(_ device: ModelDevice) -> Bool {
        devices.contains { $0.app.name == device.app.name && $0 !== device }
    }
}
