/// A rule that the simulation's own server or clients break on purpose, to show that the checker notices.
public enum SimulatedFault: String, CaseIterable, Sendable {
    /// The ledger takes another message for the one it knows by the same ID.
    case ignoreTag
    /// The ledger enters a message again that it knows.
    case enterTwice
    /// The ledger does not look at `after`.
    case ignoreAfter
    /// The server takes connects that were overtaken.
    case ignoreConnectNumber
    /// The server enters early publishes of a connect that it has seen before.
    case trustRepeatedConnect
    /// The server answers a publish, and shows the entry, before it is durable.
    case acknowledgeBeforeDurable
    /// The server ends the device's older session before the handshake is complete.
    case takeOverEarly
    /// The client stores a cursor before the app is done.
    case confirmEarly
    /// The client draws new IDs for messages that wait when a link is lost.
    case renumberOnReconnect
}
