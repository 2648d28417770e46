/// What the parts of a request's target are made of.
package enum TargetSyntax {
    private static let marks = Array("-._~%!$&'()*+,;=:[]".utf8)

    /// Whether a text can be an authority: host and port, which have no character that begins another part of a URI (RFC 3986 section
    /// 3.2), and no user information, which RFC 9114 section 4.3.1 forbids.
    package static func isAuthority(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { isLetter($0) || isDigit($0) || marks.contains($0) }
    }

    /// Whether a text can be a scheme (RFC 3986 section 3.1).
    static func isScheme(_ text: String) -> Bool {
        guard let first = text.utf8.first, isLetter(first) else { return false }
        return text.utf8.allSatisfy {
            isLetter($0) || isDigit($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".")
        }
    }

    /// Whether a path can be one of https or http: it begins with a slash, or is that of an OPTIONS request for the server as a whole
    /// (RFC 9114 section 4.3.1).
    static func isPath(_ path: String, isOptions: Bool) -> Bool {
        path.utf8.first == UInt8(ascii: "/") || (path == "*" && isOptions)
    }

    /// Whether a scheme is https or http, which are the same in capitals (RFC 3986 section 3.1).
    static func isHTTP(_ scheme: String) -> Bool {
        scheme == "https" || ["https", "http"].contains(scheme.lowercased())
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (97...122).contains(byte) || (65...90).contains(byte) }
    private static func isDigit(_ byte: UInt8) -> Bool { (48...57).contains(byte) }
}
