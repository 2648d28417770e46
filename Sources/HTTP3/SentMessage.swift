internal import CHTTP3Shim
internal import HTTPTypes

/// Writes messages as field lines, and refuses those that can't be sent (RFC 9114 sections 4.2 and 4.3).
extension FieldLines {
    /// A request's header section.
    /// - Returns: the content length that it states.
    mutating func append(_ request: HTTPRequest) throws -> UInt64? {
        append(name: ":method", value: request.method.rawValue)
        if request.method == .connect {
            throw Self.invalid("CONNECT isn't supported")
        }
        guard let scheme = request.scheme, TargetSyntax.isScheme(scheme), let path = request.path, !path.isEmpty,
            Self.isVisible(path)
        else { throw Self.invalid("the request has no scheme or path, or a character that can't be in one") }
        guard !TargetSyntax.isHTTP(scheme) || TargetSyntax.isPath(path, isOptions: request.method == .options) else {
            throw Self.invalid("the request's path doesn't begin with a slash")
        }
        append(name: ":scheme", value: scheme)
        guard let authority = request.authority, TargetSyntax.isAuthority(authority) else {
            throw Self.invalid(
                "the request has no authority, or one with user information or a character that can't be in one")
        }
        append(name: ":authority", value: authority)
        append(name: ":path", value: path)
        return try append(request.headerFields, isTrailer: false, authority: authority)
    }

    /// A response's header section.
    /// - Parameter status: the response's, which takes long to ask for.
    /// - Returns: the content length that it states.
    mutating func append(_ response: HTTPResponse, status: HTTPResponse.Status) throws -> UInt64? {
        guard status.code != 101 else { throw Self.invalid("HTTP/3 has no status 101") }
        guard status.code >= 100 else { throw Self.invalid("a status has three digits, and begins with 1 at least") }
        append(name: ":status", value: Self.text(status.code))
        // Clients take a response for malformed that has a length where none may be (RFC 9110 section 8.6).
        let hasLength = status.kind != .informational && status.code != 204
        return try append(response.headerFields, isTrailer: false, hasLength: hasLength)
    }

    /// Header or trailer lines.
    /// - Parameters:
    ///   - hasLength: whether a content length is sent where there is one.
    ///   - authority: of a request: its Host, if it has one, says the same (RFC 9114 section 4.3.1).
    /// - Returns: the content length that they state.
    @discardableResult
    mutating func append(
        _ fields: HTTPFields, isTrailer: Bool, hasLength: Bool = true, authority: String? = nil
    ) throws -> UInt64? {
        var contentLength: UInt64?
        for field in fields {
            let name = field.name.canonicalName
            // Few names have a meaning here, and their lengths tell most others apart.
            switch name.utf8.count {
            case _ where name.utf8.first == UInt8(ascii: ":"):
                throw Self.invalid("a pseudo-header field among the others")
            case _ where field.name.isOfConnection:
                throw Self.invalid("\(name) belongs to HTTP/1.1's connections")
            case 2 where name == "te" && field.value.lowercased() != "trailers":
                throw Self.invalid("TE says more than trailers")
            case 4 where name == "host":
                guard field.value == authority ?? field.value else { throw Self.invalid("Host isn't the authority") }
            case 14 where name == "content-length":
                // Signs, which numbers of Swift may have, are none of its digits.
                guard !isTrailer, field.value.utf8.allSatisfy({ (48...57).contains($0) }),
                    let length = UInt64(field.value), contentLength ?? length == length
                else { throw Self.invalid("an invalid content length") }
                // The same once more is sent once.
                let isRepeated = contentLength != nil
                contentLength = length
                if isRepeated || !hasLength { continue }
            default: break
            }
            field.withUnsafeBytesOfValue { append(name: name, valueBytes: $0, flags: Self.flags(field)) }
        }
        return contentLength
    }

    private static func flags(_ field: HTTPField) -> UInt32 {
        switch field.indexingStrategy {
        case .prefer: UInt32(LLH3_FIELD_TRY_INDEX)
        case .avoid, .disallow: UInt32(LLH3_FIELD_NEVER_INDEX)
        default: 0
        }
    }

    private static func text(_ status: Int) -> String { status == 200 ? "200" : String(status) }

    private static func isVisible(_ text: String) -> Bool { text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f } }

    private static func invalid(_ what: String) -> HTTP3Error {
        HTTP3Error(.invalidMessage, "the message can't be sent", cause: what, advice: "Change the message.")
    }
}

extension HTTPField.Name {
    /// Whether a field of this name is about a connection of HTTP/1.1, so that no message of HTTP/3 has one (RFC 9114 section 4.2).
    var isOfConnection: Bool {
        // Their lengths tell most others apart.
        switch canonicalName.utf8.count {
        case 7: canonicalName == "upgrade"
        case 10: canonicalName == "connection" || canonicalName == "keep-alive"
        case 16: canonicalName == "proxy-connection"
        case 17: canonicalName == "transfer-encoding"
        default: false
        }
    }
}
