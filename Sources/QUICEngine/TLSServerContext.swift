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

    private let credentials: Mutex<TLSCredentials>

    /// Reads certificate and key. Throws `invalidCertificate` if they can't be read or don't belong together, and
    /// `invalidConfiguration` for a protocol name that is empty or longer than 255 bytes.
    public init(
        credentials: TLSServerCredentials, applicationProtocols: [String], ticketKeys: TicketKeyRing? = nil,
        replayStore: ReplayStore? = nil, keyLog: ClientConfiguration.KeyLog? = nil
    ) throws(QUICError) {
        _ = try ALPN.encode(applicationProtocols)
        self.applicationProtocols = applicationProtocols
        self.ticketKeys = ticketKeys
        self.replayStore = replayStore
        self.keyLog = keyLog
        self.credentials = Mutex(try TLSCredentials.server(credentials))
    }

    /// Serves new connections with another certificate; those that live keep theirs. Throws as `init` does, and then
    /// the old certificate stays. Any thread.
    public func reload(_ credentials: TLSServerCredentials) throws(QUICError) {
        let loaded = try TLSCredentials.server(credentials)
        self.credentials.withLock { $0 = loaded }
    }

    /// What a new connection uses.
    var current: TLSCredentials { credentials.withLock { $0 } }
}

/// Protocol names as TLS wants them (RFC 7301).
enum ALPN {
    static func encode(_ names: [String]) throws(QUICError) -> [UInt8] {
        var bytes: [UInt8] = []
        for name in names {
            guard (1...255).contains(name.utf8.count) else {
                throw QUICError(
                    .invalidConfiguration, "The protocol name \"\(name)\" has no length from 1 to 255",
                    advice: "Give names such as \"h3\".")
            }
            bytes.append(UInt8(name.utf8.count))
            bytes.append(contentsOf: name.utf8)
        }
        guard !names.isEmpty, names.count <= 16 else {
            throw QUICError(
                .invalidConfiguration, "QUIC needs from 1 to 16 application protocols", advice: "Name what you speak.")
        }
        return bytes
    }
}
