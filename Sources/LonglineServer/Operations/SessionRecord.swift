import LonglineLinks
import LonglineWire

/// A ``SessionInfo`` in JSON, as operators' programs read it.
package struct SessionRecord: Codable, Sendable {
    // A string: not every reader of JSON keeps 64 bits of a number.
    var session: String
    /// Where it is, for those who ask more than one.
    var node: String?
    var device: String
    var platform: String
    var loginEpoch: UInt64
    var transport: String
    var remoteAddress: String
    /// In milliseconds since 1970.
    var connectedAt: UInt64
    var agent: String

    package init(_ info: SessionInfo, node: String? = nil) {
        session = "\(info.session)"
        self.node = node
        device = info.device.description
        platform = info.platform.description
        loginEpoch = info.loginEpoch
        transport = Self.name(info.transport)
        remoteAddress = info.remoteAddress
        connectedAt = info.connectedAt
        agent = info.agent
    }

    /// Nil where it speaks of something that is unknown here.
    var info: SessionInfo? {
        guard let session = UInt64(session), let device = try? DeviceID(device),
            let platform = try? DevicePlatform(platform),
            let transport = LinkKind.allCases.first(where: { Self.name($0) == transport })
        else { return nil }
        return SessionInfo(
            session: session, device: device, platform: platform, loginEpoch: loginEpoch, transport: transport,
            remoteAddress: remoteAddress, connectedAt: connectedAt, agent: agent)
    }

    private static func name(_ transport: LinkKind) -> String { transport.rawValue.lowercased() }
}
