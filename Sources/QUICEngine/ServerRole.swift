import CQUICShim

/// How an endpoint serves, checked and in the form that new connections need: they come by the thousand.
final class ServerRole {
    let configuration: ServerConfiguration
    let ticketMasters: TicketMasters?
    let antiReplay: AntiReplay?
    let alpn: [UInt8]
    /// The versions spoken.
    let versions: [UInt32]
    /// What the TLS sessions of all connections have in common, but for the credentials and ``alpn``.
    let tls: llq_tls
    /// Keeps alive what ``tls`` points to.
    let tlsObjects: [AnyObject]

    /// Throws `invalidConfiguration`.
    init(_ configuration: ServerConfiguration) throws(QUICError) {
        try configuration.validate()
        self.configuration = configuration
        let context = configuration.tls
        ticketMasters = context.ticketKeys.map {
            TicketMasters(
                ring: $0, settings: configuration.transport, protocols: context.applicationProtocols,
                clients: context.clientAuthentication, context: configuration.ticketContext)
        }
        if ticketMasters != nil, let store = context.replayStore {
            antiReplay = try AntiReplay(store: store)
        } else {
            antiReplay = nil
        }
        alpn = try ALPN.encode(context.applicationProtocols)
        versions = configuration.versions.map(\.rawValue)
        var tls = llq_tls()
        tls.priority = UnsafeMutableRawPointer(context.priority.pointer)
        tls.anti_replay = antiReplay.map { UnsafeMutableRawPointer($0.pointer) }
        tls.tickets = ticketMasters == nil ? 0 : 1
        tls.ticket_lifetime = UInt32(TicketKeyRing.ticketLifetime)
        tls.key_log = context.keyLog == nil ? 0 : 1
        tls.client_certificates = context.clientAuthentication.shim
        self.tls = tls
        tlsObjects = [context] + (antiReplay.map { [$0] } ?? [])
    }
}

extension ServerConfiguration {
    /// Throws `invalidConfiguration`.
    fileprivate func validate() throws(QUICError) {
        try transport.validate()
        try QUICVersion.validate(versions, allowsReservedFirst: false)
        let families = preferredAddresses.map(\.isIPv6)
        guard Set(families).count == families.count, preferredAddresses.allSatisfy({ $0.port != 0 }) else {
            throw QUICError(
                .invalidConfiguration, "A server prefers at most one address of each family, with a port",
                advice: "Name one IPv4 and one IPv6 address at most.")
        }
    }
}

extension TLSClientAuthentication {
    fileprivate var shim: Int32 {
        switch self {
        case .none: Int32(LLQ_CLIENT_CERTIFICATES_NONE)
        case .requested: Int32(LLQ_CLIENT_CERTIFICATES_REQUESTED)
        case .required: Int32(LLQ_CLIENT_CERTIFICATES_REQUIRED)
        }
    }
}
