/// Whom a qlog trace is about.
public struct QLogSubject: Sendable, Hashable {
    /// The connection ID that the client chose first: both sides know the connection by it.
    public let originalDestinationID: [UInt8]
    /// Whether the trace is the server's.
    public let isServer: Bool

    /// The ID in hexadecimal digits, as qlog has it.
    public var originalDestinationIDText: String { originalDestinationID.hexadecimal }
}

/// Takes a connection's trace, part by part, in the connection's thread: JSON text sequences (RFC 7464) in the format of
/// qlog 0.3, as ngtcp2 writes them. The bytes are valid during the call only. `isLast`: nothing follows.
public typealias QLogWriter = (_ bytes: UnsafeRawBufferPointer, _ isLast: Bool) -> Void

/// Asked once for each connection whether its trace is wanted; nil: it isn't, and costs nothing. A trace tells who spoke
/// to whom, when and how much, and no content.
public typealias QLog = @Sendable (QLogSubject) -> QLogWriter?

extension Sequence<UInt8> {
    /// Two digits a byte.
    var hexadecimal: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
