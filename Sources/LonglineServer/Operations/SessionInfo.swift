public import LonglineLinks
public import LonglineWire

/// A session as an operator sees it: who is connected, from where, over what.
public struct SessionInfo: Hashable, Sendable {
    /// The session's name in logs; a resumed session keeps it.
    public var session: UInt64
    /// The device.
    public var device: DeviceID
    /// What kind of device, as its token says.
    public var platform: DevicePlatform
    /// The deliberate login that its credential descends from.
    public var loginEpoch: UInt64
    /// What carries it.
    public var transport: LinkKind
    /// The peer's address and port, as of now: it changes when the device changes networks.
    public var remoteAddress: String
    /// When this link's session began, in milliseconds since 1970.
    public var connectedAt: UInt64
    /// The client library's name for itself, printable ASCII.
    public var agent: String
}
