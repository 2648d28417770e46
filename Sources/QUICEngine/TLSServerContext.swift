import Synchronization

/// A server's TLS: certificate and key, the protocols it speaks, ticket masters and the replay store. One serves all loops.
public final class TLSServerContext: Sendable {
    /// The protocols spoken, the preferred first.
    public let applicationProtocols: [String]
    /// The masters tickets are sealed with; nil: no tickets, so neither resumption nor 0-RTT.
    public let ticketKeys: TicketKeyRing?
    /// Flights seen; nil: 0-RTT is refused.
    public let replayStore: ReplayStore?
    /// Receives the connections' secrets for debugging; nil: nobody does.
    public let keyLog: ClientConfiguration.KeyLog?
    /// Whether clients are asked for certificates.
    public let clientAuthentication: TLSClientAuthentication
    /// The cipher suites taken. Among those the client offers, its own order counts.
    public let cipherSuites: [TLSCipherSuite]

    private let certificates: Mutex<CertificateTable>
    let priority: TLSPriority

    /// Reads certificates and keys.
    /// - Parameters:
    ///   - credentials: the certificate for clients that ask for no name, or for one without a certificate of its own.
    ///   - applicationProtocols: what is spoken (ALPN), the preferred first: from 1 to 8, of 1 to 31 bytes.
    ///   - ticketKeys: the masters of session tickets; nil: no tickets.
    ///   - replayStore: lets clients with a ticket send 0-RTT data; nil: it is refused.
    ///   - keyLog: receives the connections' secrets; nil: nobody does.
    ///   - certificatesByName: other certificates by the names clients ask for (SNI): full names, or `*.example.org` for
    ///     every name with one more label.
    ///   - clientAuthentication: whether clients are asked for certificates. A ticket then holds the client's, which are
    ///     verified again when it returns, and is good no longer than they are. It goes with no `replayStore`: 0-RTT data
    ///     would be read before that.
    ///   - cipherSuites: those taken; each once, at least one.
    /// - Throws: `invalidCertificate` if a certificate or key can't be read or they don't belong together, and
    ///   `invalidConfiguration` for a name or list that can't be used.
    public init(
        credentials: TLSServerCredentials, applicationProtocols: [String], ticketKeys: TicketKeyRing? = nil,
        replayStore: ReplayStore? = nil, keyLog: ClientConfiguration.KeyLog? = nil,
        certificatesByName: [String: TLSServerCredentials] = [:], clientAuthentication: TLSClientAuthentication = .none,
        cipherSuites: [TLSCipherSuite] = TLSCipherSuite.standard
    ) throws(QUICError) {
        _ = try ALPN.encode(applicationProtocols)
        guard clientAuthentication == .none || replayStore == nil else {
            throw QUICError(
                .invalidConfiguration, "A server that asks clients for certificates can't accept 0-RTT",
                advice:
                    "Leave `replayStore` out: 0-RTT data would be read before the client's certificate was verified.")
        }
        self.clientAuthentication = clientAuthentication
        self.cipherSuites = cipherSuites
        priority = try TLSPriority.shared(cipherSuites)
        self.applicationProtocols = applicationProtocols
        self.ticketKeys = ticketKeys
        self.replayStore = replayStore
        self.keyLog = keyLog
        certificates = Mutex(
            try CertificateTable(standard: credentials, byName: certificatesByName, clients: clientAuthentication))
    }

    /// Serves new connections with other certificates, in place of all there were; those that live keep theirs. Throws as
    /// `init` does, and then the old ones stay. Any thread.
    public func reload(
        _ credentials: TLSServerCredentials, certificatesByName: [String: TLSServerCredentials] = [:]
    ) throws(QUICError) {
        let loaded = try CertificateTable(
            standard: credentials, byName: certificatesByName, clients: clientAuthentication)
        certificates.withLock { $0 = loaded }
    }

    /// What a new connection uses.
    var current: CertificateTable { certificates.withLock { $0 } }
}

/// Protocol names as TLS wants them (RFC 7301), within what GnuTLS takes: fewer and shorter ones than the standard's 255 bytes.
enum ALPN {
    private static let mostNames = 8
    private static let longestName = 31

    /// Throws `invalidConfiguration`.
    static func encode(_ names: [String]) throws(QUICError) -> [UInt8] {
        var bytes: [UInt8] = []
        for name in names {
            guard (1...longestName).contains(name.utf8.count) else {
                throw QUICError(
                    .invalidConfiguration, "The protocol name \"\(name)\" has no length from 1 to \(longestName) bytes",
                    advice: "Give names such as \"h3\".")
            }
            bytes.append(UInt8(name.utf8.count))
            bytes.append(contentsOf: name.utf8)
        }
        guard !names.isEmpty, names.count <= mostNames else {
            throw QUICError(
                .invalidConfiguration, "A side names from 1 to \(mostNames) application protocols",
                advice: "Name what you speak.")
        }
        return bytes
    }
}
