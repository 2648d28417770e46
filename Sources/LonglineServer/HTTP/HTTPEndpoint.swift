import NIOCore

/// What went wrong with an HTTP request, for logs.
struct HTTPFailure: Error, CustomStringConvertible {
    var reason: String
    var description: String { reason }
}

/// Where requests go.
struct HTTPEndpoint: Sendable {
    /// Whether the connection is encrypted, and the other side's certificate verified.
    let isSecure: Bool
    let host: String
    let port: Int
    let path: String
    /// Host and port as the `host` header has them.
    let authority: String

    /// Takes an address apart.
    /// - Parameter purpose: what the address is for, to name it in errors.
    init(_ url: String, of purpose: String = "authorization policy") throws(ServerError) {
        func refuse(_ reason: String) -> ServerError {
            ServerError(
                .invalidConfiguration, message: "the address of the \(purpose) \(reason)",
                advice: "write it as https://host:port/path or http://host:port/path")
        }
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
        var name = authority[...]
        var number = isSecure ? 443 : 80
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            name = authority[..<colon]
            guard let given = Int(authority[authority.index(after: colon)...]), (1...65_535).contains(given) else {
                throw refuse("has a port that is none")
            }
            number = given
        }
        if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
        guard !name.isEmpty else { throw refuse("has no host") }
        host = String(name)
        port = number
    }
}

extension HTTPEndpoint {
    /// The name that a certificate has to carry; nil where the host is an address.
    var serverName: String? {
        (try? SocketAddress(ipAddress: host, port: port)) == nil ? host : nil
    }
}
