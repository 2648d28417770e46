import CQUICShim

/// A version of QUIC.
public struct QUICVersion: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// RFC 9000.
    public static let v1 = QUICVersion(rawValue: 0x0000_0001)
    /// RFC 9369: version 1 with other numbers, so that nothing in between relies on them. ngtcp2 has its wire image since
    /// 1.0; see ``isAvailable``.
    public static let v2 = QUICVersion(rawValue: 0x6b33_43cf)

    /// Whether the ngtcp2 in use speaks it.
    public var isAvailable: Bool { llq_version_available(rawValue) != 0 }

    /// Whether no server may speak it (RFC 9000 section 15). A client that begins with one makes the server name its
    /// versions, and goes on with one of those: an exercise for both.
    public var isReserved: Bool { rawValue & 0x0f0f_0f0f == 0x0a0a_0a0a }

    public var description: String {
        switch self {
        case .v1: "QUIC version 1"
        case .v2: "QUIC version 2"
        default: "QUIC version 0x" + String(rawValue, radix: 16)
        }
    }

    /// Throws `invalidConfiguration` for a list that can't be used.
    static func validate(_ versions: [QUICVersion], allowsReservedFirst: Bool) throws(QUICError) {
        for (index, version) in versions.enumerated() where !version.isAvailable {
            if allowsReservedFirst, index == 0, version.isReserved { continue }
            throw QUICError(
                .invalidConfiguration,
                "\(version) is not available with ngtcp2 \(String(cString: llq_ngtcp2_version()))",
                advice: version == .v2 ? "Install ngtcp2 1.0 or later, or use version 1." : "Use version 1.")
        }
        guard versions.contains(where: \.isAvailable), versions.count <= 8, Set(versions).count == versions.count
        else {
            throw QUICError(
                .invalidConfiguration, "The list of QUIC versions needs from 1 to 8 different ones",
                advice: "Name at least version 1.")
        }
    }
}
