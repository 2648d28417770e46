/// A code that a stream or connection of HTTP/3 ends with (RFC 9114 section 8.1, RFC 9204 section 6).
public struct HTTP3ErrorCode: RawRepresentable, Sendable, Hashable, CustomStringConvertible {
    /// The number on the wire, below 2^62.
    public let rawValue: UInt64

    /// A code by its number. Unknown ones count as ``noError`` (RFC 9114 section 9).
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// H3_NO_ERROR: nothing went wrong.
    public static let noError = HTTP3ErrorCode(rawValue: 0x100)
    /// H3_GENERAL_PROTOCOL_ERROR: a rule was broken for which there is no code of its own.
    public static let generalProtocolError = HTTP3ErrorCode(rawValue: 0x101)
    /// H3_INTERNAL_ERROR: the HTTP stack failed.
    public static let internalError = HTTP3ErrorCode(rawValue: 0x102)
    /// H3_STREAM_CREATION_ERROR: a stream that isn't accepted.
    public static let streamCreationError = HTTP3ErrorCode(rawValue: 0x103)
    /// H3_CLOSED_CRITICAL_STREAM: a stream that the connection needs was closed.
    public static let closedCriticalStream = HTTP3ErrorCode(rawValue: 0x104)
    /// H3_FRAME_UNEXPECTED: a frame that isn't allowed now, or not on this stream.
    public static let frameUnexpected = HTTP3ErrorCode(rawValue: 0x105)
    /// H3_FRAME_ERROR: a frame whose layout or size is wrong.
    public static let frameError = HTTP3ErrorCode(rawValue: 0x106)
    /// H3_EXCESSIVE_LOAD: the peer behaves so that it costs too much.
    public static let excessiveLoad = HTTP3ErrorCode(rawValue: 0x107)
    /// H3_ID_ERROR: a stream or push ID was used wrongly.
    public static let idError = HTTP3ErrorCode(rawValue: 0x108)
    /// H3_SETTINGS_ERROR: a SETTINGS frame with an error in its payload.
    public static let settingsError = HTTP3ErrorCode(rawValue: 0x109)
    /// H3_MISSING_SETTINGS: the control stream didn't begin with SETTINGS.
    public static let missingSettings = HTTP3ErrorCode(rawValue: 0x10a)
    /// H3_REQUEST_REJECTED: the server didn't process the request at all; it may be sent again.
    public static let requestRejected = HTTP3ErrorCode(rawValue: 0x10b)
    /// H3_REQUEST_CANCELLED: the request or its response is given up.
    public static let requestCancelled = HTTP3ErrorCode(rawValue: 0x10c)
    /// H3_REQUEST_INCOMPLETE: the client's stream ended without a full request.
    public static let requestIncomplete = HTTP3ErrorCode(rawValue: 0x10d)
    /// H3_MESSAGE_ERROR: a malformed message (RFC 9114 section 4.1.2).
    public static let messageError = HTTP3ErrorCode(rawValue: 0x10e)
    /// H3_CONNECT_ERROR: the TCP connection of a CONNECT request was reset.
    public static let connectError = HTTP3ErrorCode(rawValue: 0x10f)
    /// H3_VERSION_FALLBACK: the request must be made over HTTP/1.1.
    public static let versionFallback = HTTP3ErrorCode(rawValue: 0x110)
    /// QPACK_DECOMPRESSION_FAILED: a field section can't be decoded.
    public static let qpackDecompressionFailed = HTTP3ErrorCode(rawValue: 0x200)
    /// QPACK_ENCODER_STREAM_ERROR: an instruction on the encoder stream can't be understood.
    public static let qpackEncoderStreamError = HTTP3ErrorCode(rawValue: 0x201)
    /// QPACK_DECODER_STREAM_ERROR: an instruction on the decoder stream can't be understood.
    public static let qpackDecoderStreamError = HTTP3ErrorCode(rawValue: 0x202)

    private static let names: [HTTP3ErrorCode: String] = [
        .noError: "H3_NO_ERROR", .generalProtocolError: "H3_GENERAL_PROTOCOL_ERROR",
        .internalError: "H3_INTERNAL_ERROR", .streamCreationError: "H3_STREAM_CREATION_ERROR",
        .closedCriticalStream: "H3_CLOSED_CRITICAL_STREAM", .frameUnexpected: "H3_FRAME_UNEXPECTED",
        .frameError: "H3_FRAME_ERROR", .excessiveLoad: "H3_EXCESSIVE_LOAD", .idError: "H3_ID_ERROR",
        .settingsError: "H3_SETTINGS_ERROR", .missingSettings: "H3_MISSING_SETTINGS",
        .requestRejected: "H3_REQUEST_REJECTED", .requestCancelled: "H3_REQUEST_CANCELLED",
        .requestIncomplete: "H3_REQUEST_INCOMPLETE", .messageError: "H3_MESSAGE_ERROR",
        .connectError: "H3_CONNECT_ERROR", .versionFallback: "H3_VERSION_FALLBACK",
        .qpackDecompressionFailed: "QPACK_DECOMPRESSION_FAILED",
        .qpackEncoderStreamError: "QPACK_ENCODER_STREAM_ERROR",
        .qpackDecoderStreamError: "QPACK_DECODER_STREAM_ERROR",
    ]

    /// The RFC's name, or the number in hexadecimal digits.
    public var description: String { Self.names[self] ?? "0x" + String(rawValue, radix: 16) }
}

/// A rule that the peer broke, and what it ends.
enum Violation: Error {
    /// The whole connection.
    case connection(HTTP3ErrorCode, String)
    /// One request; the connection goes on.
    case stream(HTTP3ErrorCode, String)
}
