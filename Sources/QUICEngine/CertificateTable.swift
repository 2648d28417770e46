/// A server's certificates by the names clients ask for. Never changed once made.
final class CertificateTable: Sendable {
    /// For clients that name nothing we know.
    let standard: TLSCredentials
    /// By full name, in lower case.
    private let exact: [String: TLSCredentials]
    /// By what follows the first label of a name.
    private let wildcards: [String: TLSCredentials]

    var hasNames: Bool { !exact.isEmpty || !wildcards.isEmpty }

    /// Throws `invalidCertificate`, and `invalidConfiguration` for a name that can't be one.
    init(
        standard: TLSServerCredentials, byName: [String: TLSServerCredentials], clients: TLSClientAuthentication
    ) throws(QUICError) {
        self.standard = try TLSCredentials.server(standard, clients: clients)
        var exact: [String: TLSCredentials] = [:]
        var wildcards: [String: TLSCredentials] = [:]
        for (name, credentials) in byName {
            let loaded = try TLSCredentials.server(credentials, clients: clients)
            let lower = name.lowercased()
            let rest = lower.hasPrefix("*.") ? String(lower.dropFirst(2)) : lower
            guard !rest.isEmpty, rest.utf8.count <= 253, !rest.contains("*"),
                rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
            else {
                throw QUICError(
                    .invalidConfiguration, "\"\(name)\" is no server name",
                    advice: "Give DNS names such as \"example.org\" or \"*.example.org\".")
            }
            if lower.hasPrefix("*.") { wildcards[rest] = loaded } else { exact[rest] = loaded }
        }
        self.exact = exact
        self.wildcards = wildcards
    }

    /// The certificate for a name: its own, else that of the wildcard for its domain; nil: the standard one.
    func credentials(for name: String) -> TLSCredentials? {
        let lower = name.lowercased()
        if let known = exact[lower] { return known }
        guard let dot = lower.firstIndex(of: ".") else { return nil }
        return wildcards[String(lower[lower.index(after: dot)...])]
    }
}
