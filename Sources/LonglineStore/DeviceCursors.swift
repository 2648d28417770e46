public import LonglineWire

/// What devices have confirmed: one record a device.
public protocol DeviceCursors: Sendable {
    /// Moves cursors forward, and answers the record as it is then.
    ///
    /// Within an epoch a cursor only grows; a cursor of another epoch than the channel's current one is ignored. The
    /// version grows when the record changed.
    func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord

    /// As ``advance(_:to:)``, for who does not ask for the record: its cost is that of the cursors named, however many the
    /// device has.
    func move(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError)

    /// The record as it is: that of ``advance(_:to:)`` with no cursors. It keeps nobody from writing.
    func cursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord

    /// The foremost place that any of a user's devices confirmed in a channel, in its current epoch; nil when there is none.
    func confirmed(by user: UserID, in channel: ChannelKey) async throws(StoreError) -> Position?

    /// Takes note of a connect, and tells what was known of the device before it.
    func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64) async throws(StoreError)
        -> ConnectAdmission
}

extension DeviceCursors {
    /// By ``advance(_:to:)``.
    public func move(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) {
        _ = try await advance(device, to: cursors)
    }

    /// By ``advance(_:to:)``.
    public func cursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord {
        try await advance(device, to: [])
    }
}

/// What a store answers to a connect.
public enum ConnectAdmission: Hashable, Sendable {
    /// A higher number of this producer was seen: nothing was noted.
    case stale
    /// This number of this producer was seen before: the same connect again, or a replay of it.
    case repeated
    /// The store knew nothing of the device before.
    case firstOfDevice
    /// The device was seen before, and this number is new.
    case returning
    /// The user's account is being erased: nothing was noted, and nothing of the user's may be taken in until that is done.
    case erasing
}

/// All cursors of one device.
public struct CursorRecord: Hashable, Sendable {
    /// Grows with every change; 0 before the first.
    public var version: UInt64
    /// The places confirmed, in their current epochs.
    public var cursors: [ChannelID: Position]

    /// A record.
    public init(version: UInt64, cursors: [ChannelID: Position]) {
        self.version = version
        self.cursors = cursors
    }

    /// Whether a place is no news: the record is as far in that epoch.
    public func covers(_ place: ChannelPosition) -> Bool {
        guard let known = cursors[place.channel] else { return false }
        return known.epoch == place.position.epoch && known.offset >= place.position.offset
    }
}
