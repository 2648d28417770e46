import NIOCore

/// What went wrong with an HTTP request, for logs.
package struct HTTPFailure: Error, CustomStringConvertible {
    package var reason: String
    package var cause: (any Error)?
    /// The answer was larger than is taken.
    package var isOverLimit = false
    /// The answer had begun: the other side has the request.
    package var isAfterAnswer = false

    package init(reason: String, cause: (any Error)? = nil) {
        self.reason = reason
        self.cause = cause
    }

    package var description: String { cause.map { "\(reason) [\($0)]" } ?? reason }
}

/// Where requests go.
package struct HTTPEndpoint: Hashable, Sendable {
    /// Whether the connection is encrypted, and the other side's certificate verified.
    package let isSecure: Bool
    package let host: String
    package let port: Int
    package let path: String
    /// Host and port as the `host` header has them.
    package let authority: String
    /// The name that a certificate has to carry; nil where the host is an address, which it then is for.
    package var serverName: String?

    /// Takes an address apart.
    /// - Throws: what is wrong with it, as the rest of a sentence.
    package init(url: String) throws(HTTPFailure) {
        func refuse(_ reason: String) -> HTTPFailure { HTTPFailure(reason: reason) }
        guard url.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw refuse("has a space or something outside ASCII")
        }
        isSecure = url.hasPrefix("https://")
        guard isSecure || url.hasPrefix("http://") else { throw refuse("does not begin with https:// or http://") }
        let rest = url.dropFirst(isSecure ? "https://".count : "http://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        authority = String(rest[..<slash])
        path = slash == rest.endIndex ? "/" : String(rest[slash...])
        guard !authority.isEmpty, !authority.contains(where: { "@?#".contains($0) }), !path.contains("#") else {
            throw refuse("has no host, or parts that have no place in it")
        }
        guard path.utf8.allSatisfy(Self.isPathByte) else {
            throw refuse("has a path or query with characters that have to be written as % and two hexadecimal digits")
        }
        var name = authority[...]
        var number = isSecure ? 443 : 80
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            name = authority[..<colon]
            guard let given = Int(authority[authority.index(after: colon)...]), (1...65_535).contains(given) else {
                throw refuse("has a port that is none")
            }
            number = given
        }
        let isBracketed = name.count > 1 && name.hasPrefix("[") && name.hasSuffix("]")
        if isBracketed { name = name.dropFirst().dropLast() }
        guard !name.isEmpty else { throw refuse("has no host") }
        // Without brackets nothing says where an IPv6 address ends and a port begins.
        guard !name.contains(where: { "[]".contains($0) }), name.contains(":") == isBracketed else {
            throw refuse("has a host that is none: only an IPv6 address has colons, and it stands in brackets")
        }
        host = String(name)
        port = number
        serverName = (try? SocketAddress(ipAddress: host, port: port)) == nil ? host : nil
    }

    /// Whether a path or query may have it as it is: what RFC 3986 allows, and square brackets, which queries often have. A request with
    /// anything else is never sent.
    private static func isPathByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "-._~:/?[]@!$&'()*+,;=%".utf8.contains(byte)
        }
    }
}
