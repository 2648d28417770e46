import HTTPTypes
import QUICEngine

#if canImport(Glibc)
    import Glibc
#endif

/// What RFC 9114 demands of messages that an application gets.
enum HTTP3Rules {
    private static let forbidden: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
    ]

    static func check(_ request: HTTPRequest, limit: Int) throws {
        var size = try checkFields(request.headerFields)
        // It is the authority.
        guard !request.headerFields.contains(where: { $0.name.rawName == "host" }) else { throw FuzzFinding("Host") }
        guard request.method != .connect else { throw FuzzFinding("a handler sees CONNECT") }
        guard !request.method.rawValue.isEmpty, request.method.rawValue.utf8.allSatisfy(isTokenByte) else {
            throw FuzzFinding("the method \(request.method)")
        }
        guard let scheme = request.scheme, !scheme.isEmpty, let path = request.path, !path.isEmpty,
            isVisible(scheme), isVisible(path)
        else { throw FuzzFinding("a request without scheme or path: \(request)") }
        if let authority = request.authority,
            authority.utf8.contains(where: { !isVisible($0) || "/?#@\\".utf8.contains($0) })
        {
            throw FuzzFinding("the authority \(authority)")
        }
        if ["https", "http"].contains(scheme.lowercased()) {
            guard path.hasPrefix("/") || (path == "*" && request.method == .options) else {
                throw FuzzFinding("the path \(path)")
            }
            guard let authority = request.authority, !authority.isEmpty else {
                throw FuzzFinding("a request without an authority: \(request)")
            }
        }
        guard request.extendedConnectProtocol == nil else { throw FuzzFinding("a protocol") }
        for text in [request.method.rawValue, scheme, path] { size += text.utf8.count + 32 }
        guard size <= limit else { throw FuzzFinding("a section of \(size) bytes, and \(limit) are allowed") }
    }

    static func check(_ response: HTTPResponse, limit: Int, informational: Bool) throws {
        let size = try checkFields(response.headerFields) + 3 + 32
        let code = response.status.code
        guard (100...999).contains(code), code != 101, informational == (code < 200) else {
            throw FuzzFinding("status \(code)")
        }
        guard size <= limit else { throw FuzzFinding("a section of \(size) bytes, and \(limit) are allowed") }
    }

    /// - Returns: what the lines count.
    @discardableResult
    static func checkFields(_ fields: HTTPFields) throws -> Int {
        var size = 0
        for field in fields {
            let name = field.name.rawName
            guard !name.isEmpty, name.utf8.allSatisfy({ isTokenByte($0) && !(65...90).contains($0) }) else {
                throw FuzzFinding("the field name \(name)")
            }
            guard !forbidden.contains(name) else { throw FuzzFinding("the field \(name)") }
            let isClean = field.withUnsafeBytesOfValue { bytes in
                bytes.allSatisfy { ($0 >= 0x20 && $0 != 0x7f) || $0 == 9 }
            }
            guard isClean else { throw FuzzFinding("the value of \(name)") }
            guard name != "te" || field.value.lowercased() == "trailers" else { throw FuzzFinding("TE \(field.value)") }
            size += name.utf8.count + field.value.utf8.count + 32
        }
        return size
    }

    // MARK: Sections

    static func section(_ request: HTTPRequest) -> [HTTP3Choices.Field] {
        let pseudo = [
            (":authority", request.authority), (":method", request.method.rawValue), (":path", request.path),
            (":scheme", request.scheme),
        ]
        return pseudo.compactMap { name, value in value.map { (name, Array($0.utf8)) } } + lines(request.headerFields)
    }

    static func section(_ response: HTTPResponse) -> [HTTP3Choices.Field] {
        [(":status", Array("\(response.status.code)".utf8))] + lines(response.headerFields)
    }

    private static func lines(_ fields: HTTPFields) -> [HTTP3Choices.Field] {
        fields.map { field in (field.name.rawName, field.withUnsafeBytesOfValue { Array($0) }) }
    }

    /// An application gets the lines that were sent: pseudo-header fields first, each once, and no other than there are; Host as
    /// the authority.
    static func checkSame(_ message: HTTP3Watch.Message, _ sent: [HTTP3Choices.Field]) throws {
        var pseudo: [String: [UInt8]] = [:]
        var rest: [HTTP3Choices.Field] = []
        for (name, value) in sent {
            if name == "host", pseudo[":method"] != nil {
                if let authority = pseudo[":authority"], authority != value { throw FuzzFinding("two authorities") }
                pseudo[":authority"] = value
            } else if name.hasPrefix(":") {
                guard rest.isEmpty, pseudo.updateValue(value, forKey: name) == nil else {
                    throw FuzzFinding("\(name) comes twice, or late: \(sent)")
                }
            } else {
                rest.append((name, trimmed(value)))
            }
        }
        let expected = pseudo.sorted { $0.key < $1.key }.map { ($0.key, $0.value) } + rest
        let got = message.section.map { $0.name.hasPrefix(":") ? $0 : ($0.name, trimmed($0.value)) }
        guard expected.elementsEqual(got, by: { $0.0 == $1.0 && $0.1 == $1.1 }) else {
            throw FuzzFinding("sent: \(expected), got: \(got)")
        }
    }

    /// Space around a value is none of its own (RFC 9110 section 5.5).
    private static func trimmed(_ value: [UInt8]) -> [UInt8] {
        let isSpace: (UInt8) -> Bool = { $0 == 0x20 || $0 == 9 }
        return Array(value.drop(while: isSpace).reversed().drop(while: isSpace).reversed())
    }

    private static func isVisible(_ text: String) -> Bool { text.utf8.allSatisfy(isVisible) }
    private static func isVisible(_ byte: UInt8) -> Bool { byte > 0x20 && byte < 0x7f }

    /// RFC 9110 section 5.6.2.
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 97...122: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    /// A body is what the stream's DATA frames hold: at most that, and if its end came, all of that and as much as was
    /// announced.
    static func checkBody(_ message: HTTP3Watch.Message, _ stream: StreamsInMemory.Stream) throws {
        let sent = data(stream.arrived)
        guard begins(sent.bytes, with: message.body) else {
            throw FuzzFinding("\(stream.id): \(message.body.count) bytes that aren't the \(sent.bytes.count) that came")
        }
        guard message.isEnded else { return }
        guard stream.hasEnd, sent.isWhole, sent.bytes.count == message.body.count else {
            throw FuzzFinding("\(stream.id): a body ends after \(message.body.count) bytes of \(sent.bytes.count)")
        }
        let expected = message.hasNoBody ? 0 : message.contentLength
        guard expected ?? UInt64(message.body.count) == UInt64(message.body.count) else {
            throw FuzzFinding("\(stream.id): \(message.body.count) bytes, and \(expected ?? 0) were announced")
        }
    }

    private static func begins(_ bytes: [UInt8], with other: [UInt8]) -> Bool {
        guard other.count <= bytes.count else { return false }
        return other.isEmpty || memcmp(bytes, other, other.count) == 0
    }

    /// The payload of all DATA frames, and whether the bytes end between frames.
    private static func data(_ bytes: [UInt8]) -> (bytes: [UInt8], isWhole: Bool) {
        var result: [UInt8] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let type = varint(&rest), let length = varint(&rest) else { return (result, false) }
            let payload = rest.prefix(Int(clamping: length))
            if type == 0 { result += payload }
            rest = rest.dropFirst(payload.count)
            guard UInt64(payload.count) == length else { return (result, false) }
        }
        return (result, true)
    }

    private static func varint(_ bytes: inout ArraySlice<UInt8>) -> UInt64? {
        guard let first = bytes.first else { return nil }
        let count = 1 << Int(first >> 6)
        guard bytes.count >= count else { return nil }
        let value = bytes.prefix(count).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        bytes = bytes.dropFirst(count)
        return value & (count == 8 ? 1 << 62 - 1 : 1 << UInt64(8 * count - 2) - 1)
    }

    // MARK: What a session writes

    /// The types of the frames, and whether the bytes end between frames.
    private static func frames(_ bytes: ArraySlice<UInt8>) -> (types: [UInt64], isWhole: Bool) {
        var types: [UInt64] = []
        var rest = bytes
        while !rest.isEmpty {
            guard let type = varint(&rest), let length = varint(&rest) else { return (types, false) }
            types.append(type)
            guard UInt64(rest.count) >= length else { return (types, false) }
            rest = rest.dropFirst(Int(length))
        }
        return (types, true)
    }

    /// What a session's own streams carry.
    static func checkOutput(_ stream: StreamsInMemory.Stream) throws {
        guard stream.sends else { return }
        if stream.id.isBidirectional {
            let (types, isWhole) = frames(stream.sent[...])
            guard types.allSatisfy({ $0 <= 1 }), types.first ?? 1 == 1 else {
                throw FuzzFinding("\(stream.id) carries \(types)")
            }
            // What was reset may end anywhere.
            guard !stream.isFinishing || stream.resetCode != nil || (isWhole && !types.isEmpty) else {
                throw FuzzFinding("\(stream.id) ends within a frame, or has none: \(types)")
            }
        } else if stream.sent.first == 0 {
            let types = frames(stream.sent[1...]).types
            guard types.first ?? 4 == 4, types.dropFirst().allSatisfy({ $0 == 7 || $0 == 0xf0700 }) else {
                throw FuzzFinding("the control stream carries \(types)")
            }
        }
    }
}
