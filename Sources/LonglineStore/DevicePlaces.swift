public import LonglineWire

/// How many devices of a user an app wants to have at a time.
public enum DevicePolicy: String, Hashable, Sendable, CaseIterable {
    /// All of them.
    case all
    /// One of each ``/LonglineWire/DevicePlatform``.
    case onePerPlatform = "one-per-platform"
    /// One.
    case one
}

/// Which device holds a user's place, where a ``DevicePolicy`` gives out fewer places than a user has devices.
///
/// For each user and platform the highest login is kept, with its device; it stays when the device is gone, so that an older
/// login never comes back. What is kept does not depend on the policy, which may so be changed: it only says whose logins are
/// compared.
public protocol DevicePlaces: Sendable {
    /// Tells, without changing anything, what ``takePlace(of:policy:)`` would answer.
    func place(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer

    /// Takes the place for a login, if it is newer than the login that has it. Durable when it answers.
    ///
    /// The calls of all devices have one order: of two logins the newer has the place after both calls, whichever came first.
    /// - Throws: ``StoreError/Code/limitExceeded`` when the user has ``StoreLimits/platformsPerUser`` platforms.
    func takePlace(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer
}

/// A deliberate login, as the credentials that descend from it say.
public struct DeviceLogin: Hashable, Sendable {
    /// The device that was logged in.
    public var device: DeviceKey
    /// What kind of device.
    public var platform: DevicePlatform
    /// The login's number: it grows with each login of the user, whatever the device.
    public var number: UInt64

    /// A login.
    public init(device: DeviceKey, platform: DevicePlatform, number: UInt64) {
        self.device = device
        self.platform = platform
        self.number = number
    }
}

/// What a login gets.
public enum PlaceAnswer: Hashable, Sendable {
    /// The device has the place already, by this login.
    case held
    /// The place is this login's now; sessions of older logins on other devices that the policy compares have to end.
    case taken
    /// A device has it by a login that is newer, or by an equal one that came before: this login is void.
    case refused(holder: DeviceID, login: UInt64)
}
