internal import HTTPTypes
internal import NIOCore

/// What the peer says on its control stream.
enum ControlFrame: Equatable {
    case settings(PeerSettings)
    case goaway(UInt64)
    case maxPushID(UInt64)
    case cancelPush(UInt64)
    case priorityUpdate(stream: UInt64, HTTP3Priority)
}

/// The peer's SETTINGS (RFC 9114 section 7.2.4.1, RFC 9204 section 5).
struct PeerSettings: Equatable {
    var fieldSectionSize: UInt64?
    var tableCapacity: UInt64 = 0
    var blockedStreams: UInt64 = 0
}

/// Reads the peer's control stream.
///
/// ```
///  SETTINGS expected --SETTINGS--> any frame of a control stream, but no second SETTINGS
///       \--anything else--> H3_MISSING_SETTINGS
/// ```
struct ControlStreamReader {
    /// Longer frames of known types are more than anyone needs.
    private static let largestFrame: UInt64 = 4096

    let isServer: Bool
    private var frame = FrameReader()
    private var payload = ByteBuffer()
    private var sawSettings = false

    init(isServer: Bool) { self.isServer = isServer }

    /// Takes bytes from `offset` on, until a frame is complete that says something.
    mutating func next(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) throws(Violation) -> ControlFrame? {
        while true {
            if frame.type == nil {
                guard frame.readHeader(bytes, &offset) else { return nil }
                try admit()
            }
            guard let type = frame.type else { continue }
            let count = Int(min(frame.left, UInt64(bytes.count - offset)))
            if Self.isKnown(type) {
                payload.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
            }
            offset += count
            frame.took(count)
            guard frame.type == nil else { return nil }
            defer { payload.clear() }
            if let result = try interpret(type) { return result }
        }
    }

    private static func isKnown(_ type: UInt64) -> Bool { FrameType.belongsOnControlStream(type) }

    /// Judges a frame by its header.
    private mutating func admit() throws(Violation) {
        guard let type = frame.type else { return }
        guard sawSettings || type == FrameType.settings else {
            throw .connection(.missingSettings, "the control stream doesn't begin with SETTINGS")
        }
        switch type {
        case FrameType.settings where sawSettings: throw .connection(.frameUnexpected, "a second SETTINGS")
        case FrameType.data, FrameType.headers, FrameType.pushPromise:
            throw .connection(.frameUnexpected, "a request's frame on the control stream")
        case FrameType.maxPushID where !isServer:
            throw .connection(.frameUnexpected, "a server sent MAX_PUSH_ID")
        case FrameType.priorityUpdateRequest where !isServer, FrameType.priorityUpdatePush where !isServer:
            throw .connection(.frameUnexpected, "a server sent PRIORITY_UPDATE")
        case _ where FrameType.isReservedByHTTP2(type):
            throw .connection(.frameUnexpected, "a frame of HTTP/2")
        default: break
        }
        if Self.isKnown(type), frame.left > Self.largestFrame {
            throw .connection(.excessiveLoad, "a control frame of \(frame.left) bytes")
        }
    }

    private mutating func interpret(_ type: UInt64) throws(Violation) -> ControlFrame? {
        switch type {
        case FrameType.settings:
            sawSettings = true
            return .settings(try settings())
        case FrameType.goaway: return .goaway(try onlyVarint())
        case FrameType.maxPushID: return .maxPushID(try onlyVarint())
        case FrameType.cancelPush: return .cancelPush(try onlyVarint())
        case FrameType.priorityUpdateRequest:
            let stream = try varint()
            // Only requests have one (RFC 9218 section 7.2).
            guard stream & 3 == 0 else { throw .connection(.idError, "PRIORITY_UPDATE for no request stream") }
            return .priorityUpdate(stream: stream, try priority())
        case FrameType.priorityUpdatePush:
            // Nothing is pushed, so no push ID is valid.
            throw .connection(.idError, "PRIORITY_UPDATE for a push that was not promised")
        default: return nil
        }
    }

    private mutating func varint() throws(Violation) -> UInt64 {
        guard let value = payload.readVarint() else { throw .connection(.frameError, "a frame is too short") }
        return value
    }

    private mutating func onlyVarint() throws(Violation) -> UInt64 {
        let value = try varint()
        guard payload.readableBytes == 0 else { throw .connection(.frameError, "a frame is too long") }
        return value
    }

    private mutating func priority() throws(Violation) -> HTTP3Priority {
        guard let priority = payload.withUnsafeReadableBytes({ HTTP3Priority.parse($0) }) else {
            throw .connection(.generalProtocolError, "a priority that is no dictionary")
        }
        return priority
    }

    private mutating func settings() throws(Violation) -> PeerSettings {
        var settings = PeerSettings()
        var seen = Set<UInt64>()
        while payload.readableBytes > 0 {
            let identifier = try varint()
            let value = try varint()
            guard seen.insert(identifier).inserted else {
                throw .connection(.settingsError, "a setting comes twice")
            }
            switch identifier {
            case 0x1: settings.tableCapacity = value
            case 0x6: settings.fieldSectionSize = value
            case 0x7: settings.blockedStreams = value
            // What only HTTP/2 has (RFC 9114 section 7.2.4.1).
            case 0x0, 0x2, 0x3, 0x4, 0x5: throw .connection(.settingsError, "a setting of HTTP/2")
            // Booleans (RFC 9220 section 5, RFC 9297 section 2.1.1).
            case 0x8, 0x33:
                guard value <= 1 else { throw .connection(.settingsError, "a switch with the value \(value)") }
            default: break
            }
        }
        return settings
    }
}
