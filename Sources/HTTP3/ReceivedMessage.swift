internal import CHTTP3Shim
internal import HTTPTypes

/// What a header section of a request said.
struct RequestHead {
    var request: HTTPRequest
    var contentLength: UInt64?
    var priority: HTTP3Priority
    /// The client waits for an interim response before it sends the body (RFC 9110 section 10.1.1).
    var expectsContinue: Bool
}

/// What a header section of a response said.
struct ResponseHead {
    var response: HTTPResponse
    var contentLength: UInt64?
}

/// Turns decoded field sections into messages, and finds those that are malformed (RFC 9114 sections 4.2 and 4.3).
struct MessageReader {
    private var memory = FieldMemory()

    /// The pseudo-header fields of one section.
    private struct Pseudo {
        var method: String?
        var scheme: String?
        var authority: String?
        var path: String?
        var status: String?
        var `protocol`: String?
    }

    private struct Parts {
        var pseudo = Pseudo()
        var fields = HTTPFields()
        var contentLength: UInt64?
        var host: String?
        var priority: String?
        var expectsContinue = false
    }

    private static func malformed(_ what: String) -> Violation { .stream(.messageError, what) }

    mutating func request(_ section: llh3_section) throws(Violation) -> RequestHead {
        let parts = try parts(section, allowsPseudo: true)
        let pseudo = parts.pseudo
        guard pseudo.status == nil else { throw Self.malformed("a request has a status") }
        guard let text = pseudo.method, let method = Self.method(text) else {
            throw Self.malformed("a request has no valid method")
        }
        try Self.checkTarget(pseudo, method, host: parts.host)
        var request = HTTPRequest(
            method: method, scheme: pseudo.scheme, authority: pseudo.authority ?? parts.host, path: pseudo.path,
            headerFields: parts.fields)
        if let name = pseudo.protocol { request.extendedConnectProtocol = name }
        return RequestHead(
            request: request, contentLength: parts.contentLength,
            priority: parts.priority.flatMap { HTTP3Priority(fieldValue: $0) } ?? .standard,
            expectsContinue: parts.expectsContinue)
    }

    mutating func response(_ section: llh3_section) throws(Violation) -> ResponseHead {
        let parts = try parts(section, allowsPseudo: true)
        let pseudo = parts.pseudo
        guard pseudo.method == nil, pseudo.scheme == nil, pseudo.authority == nil, pseudo.path == nil,
            pseudo.protocol == nil
        else { throw Self.malformed("a response has pseudo-header fields of a request") }
        // HTTP/3 has no upgrade (RFC 9114 section 4.5).
        guard let text = pseudo.status, text.utf8.count == 3, text.utf8.allSatisfy({ (48...57).contains($0) }),
            let code = Int(text), (100...999).contains(code), code != 101
        else { throw Self.malformed("a response has no valid status") }
        let response = HTTPResponse(status: HTTPResponse.Status(code: code), headerFields: parts.fields)
        return ResponseHead(response: response, contentLength: parts.contentLength)
    }

    mutating func trailers(_ section: llh3_section) throws(Violation) -> HTTPFields {
        try parts(section, allowsPseudo: false).fields
    }

    /// A method; those of most requests without looking at each of their characters.
    private static func method(_ text: String) -> HTTPRequest.Method? {
        switch text {
        case "GET": .get
        case "POST": .post
        case "PUT": .put
        case "HEAD": .head
        default: HTTPRequest.Method(text)
        }
    }

    /// RFC 9114 sections 4.3.1 and 4.4.
    private static func checkTarget(
        _ pseudo: Pseudo, _ method: HTTPRequest.Method, host: String?
    ) throws(Violation) {
        if let authority = pseudo.authority {
            guard TargetSyntax.isAuthority(authority) else { throw malformed("the authority can't be one") }
            if let host, host != authority { throw malformed("authority and Host differ") }
        } else if let host, !host.isEmpty, !TargetSyntax.isAuthority(host) {
            throw malformed("Host, which stands in for the authority, can't be one")
        }
        if method == .connect, pseudo.protocol == nil {
            guard pseudo.scheme == nil, pseudo.path == nil, pseudo.authority != nil else {
                throw malformed("a CONNECT request has an authority and neither scheme nor path")
            }
            return
        }
        guard pseudo.protocol == nil || method == .connect else {
            throw malformed("only CONNECT has a protocol")
        }
        guard let scheme = pseudo.scheme, TargetSyntax.isScheme(scheme), let path = pseudo.path, !path.isEmpty else {
            throw malformed("a request lacks scheme or path, or the scheme can't be one")
        }
        guard TargetSyntax.isHTTP(scheme) else { return }
        guard TargetSyntax.isPath(path, isOptions: method == .options) else {
            throw malformed("the path doesn't begin with a slash")
        }
        guard let target = pseudo.authority ?? host, !target.isEmpty else {
            throw malformed("a request has neither authority nor Host")
        }
    }

    private mutating func parts(_ section: llh3_section, allowsPseudo: Bool) throws(Violation) -> Parts {
        var parts = Parts()
        parts.fields.reserveCapacity(section.count)
        var rest = UnsafeBufferPointer(start: section.bytes, count: section.length)[...]
        var sawField = false
        for index in 0..<section.count {
            let field = section.fields[index]
            let name = UnsafeBufferPointer(rebasing: rest.prefix(Int(field.name_length)))
            rest = rest.dropFirst(Int(field.name_length))
            let value = UnsafeBufferPointer(rebasing: rest.prefix(Int(field.value_length)))
            rest = rest.dropFirst(Int(field.value_length))
            guard field.flags & UInt32(LLH3_FIELD_BAD_NAME | LLH3_FIELD_BAD_VALUE) == 0 else {
                throw Self.malformed("a field's name or value has a forbidden character")
            }
            if field.flags & UInt32(LLH3_FIELD_PSEUDO) != 0 {
                guard allowsPseudo, !sawField else {
                    throw Self.malformed("a pseudo-header field where none may be")
                }
                try set(name, value, in: &parts.pseudo)
            } else {
                sawField = true
                try append(field, name, value, to: &parts)
            }
        }
        return parts
    }

    private mutating func set(
        _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>, in pseudo: inout Pseudo
    ) throws(Violation) {
        guard value.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw Self.malformed("a pseudo-header field has a character that it can't have")
        }
        if Self.matches(name, ":authority") {
            guard pseudo.authority == nil else { throw Self.twice }
            pseudo.authority = memory.authority(value)
            return
        }
        let text = String(decoding: value, as: UTF8.self)
        let old: String?
        if Self.matches(name, ":method") {
            (old, pseudo.method) = (pseudo.method, text)
        } else if Self.matches(name, ":scheme") {
            (old, pseudo.scheme) = (pseudo.scheme, text)
        } else if Self.matches(name, ":path") {
            (old, pseudo.path) = (pseudo.path, text)
        } else if Self.matches(name, ":status") {
            (old, pseudo.status) = (pseudo.status, text)
        } else if Self.matches(name, ":protocol") {
            (old, pseudo.protocol) = (pseudo.protocol, text)
        } else {
            throw Self.malformed("an unknown pseudo-header field")
        }
        guard old == nil else { throw Self.twice }
    }

    private static let twice = malformed("a pseudo-header field comes twice")

    private static func matches(_ bytes: UnsafeBufferPointer<UInt8>, _ text: StaticString) -> Bool {
        bytes.elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private mutating func append(
        _ field: llh3_field, _ bytes: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>,
        to parts: inout Parts
    ) throws(Violation) {
        let isNeverIndexed = field.flags & UInt32(LLH3_FIELD_NEVER_INDEX) != 0
        if !isNeverIndexed, let known = memory.field(field.token, value: value) { return parts.fields.append(known) }
        guard let name = memory.name(field.token, bytes) else { throw Self.malformed("an invalid field name") }
        var line = HTTPField(name: name, lenientValue: value)
        if isNeverIndexed { line.indexingStrategy = .disallow }
        // Few names have a meaning here, and their lengths tell most others apart.
        switch bytes.count {
        case 2 where name.canonicalName == "te":
            guard line.value.lowercased() == "trailers" else { throw Self.malformed("TE says more than trailers") }
        case 4 where name.canonicalName == "host":
            // Of a response and of trailers it is a field like any.
            guard parts.pseudo.method != nil else { break }
            guard parts.host == nil || parts.host == line.value else { throw Self.malformed("two hosts") }
            // It becomes the request's authority.
            parts.host = line.value
            return
        case 6 where name.canonicalName == "expect":
            if line.value.lowercased() == "100-continue" { parts.expectsContinue = true }
        case _ where name.isOfConnection:
            throw Self.malformed("a field of HTTP/1.1's connections: \(name.canonicalName)")
        case 8 where name.canonicalName == "priority":
            // Several lines are one list (RFC 9110 section 5.3); one that is too long to be read need not grow.
            if let first = parts.priority {
                if first.utf8.count <= HTTP3Priority.longest { parts.priority = "\(first), \(line.value)" }
            } else {
                parts.priority = line.value
            }
        case 14 where name.canonicalName == "content-length":
            guard !value.isEmpty, value.count <= 19, value.allSatisfy({ (48...57).contains($0) }),
                let length = UInt64(line.value), parts.contentLength ?? length == length
            else { throw Self.malformed("an invalid content length") }
            // Who passes the message on has one to pass on (RFC 9110 section 8.6).
            guard parts.contentLength == nil else { return }
            parts.contentLength = length
        default:
            if !isNeverIndexed { memory.remember(line, field.token, length: value.count) }
        }
        parts.fields.append(line)
    }
}
