import LonglineWire

/// A device of a user: another user may be logged in on one of that name before or afterwards.
struct DeviceName: Hashable {
    let user: UserID
    let device: DeviceID
}
