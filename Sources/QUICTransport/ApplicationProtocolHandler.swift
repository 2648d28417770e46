public import QUICEngine

/// Lets several application protocols share a server's port: hands each accepted connection to the handler of the protocol that
/// it agreed on by ALPN.
///
/// ```
///  undecided --the protocol is known--> decided     (events that came before are handed on first, in order)
///      \--closed before that--> over
/// ```
/// Return one from the handler factory of ``QUICServer/bind(addresses:configuration:group:handlerFactory:)``.
public final class ApplicationProtocolHandler: QUICConnectionHandler {
    /// Makes the handler for a connection of one protocol; nil: the protocol isn't served, and the connection is closed.
    public typealias Choice = (_ applicationProtocol: String, QUICLoopConnection) -> (any QUICConnectionHandler)?

    /// A client's first flight, and no more, can bring events before the protocol is known.
    private static let heldEvents = 64

    private let choose: Choice
    private let refusalCode: UInt64
    private var chosen: (any QUICConnectionHandler)?
    private var held: [QUICConnectionEvent] = []
    private var isRefused = false

    /// A handler for one connection.
    /// - Parameters:
    ///   - refusalCode: the application code for connections that nobody serves.
    ///   - choose: called once, on the connection's loop, before 0-RTT data is read.
    public init(refusalCode: UInt64 = 0, choose: @escaping Choice) {
        self.refusalCode = refusalCode
        self.choose = choose
    }

    /// Called by the connection.
    public func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if let chosen { return chosen.handle(event, on: connection) }
        if case .closed = event { return held.removeAll() }
        guard !isRefused else { return close(connection) }
        held.append(event)
        guard let name = connection.applicationProtocol else {
            if held.count > Self.heldEvents || connection.handshake != nil { refuse(connection) }
            return
        }
        guard let handler = choose(name, connection) else { return refuse(connection) }
        chosen = handler
        let events = held
        held = []
        for event in events { handler.handle(event, on: connection) }
    }

    private func refuse(_ connection: QUICLoopConnection) {
        isRefused = true
        held.removeAll()
        close(connection)
    }

    /// Before the handshake's end no application code can be told (RFC 9000 section 10.2.3).
    private func close(_ connection: QUICLoopConnection) {
        guard connection.handshake != nil else { return }
        connection.close(code: refusalCode, reason: "this application protocol isn't served")
    }

    /// Called by the connection.
    public func batchEnded(on connection: QUICLoopConnection) { chosen?.batchEnded(on: connection) }

    /// Called by the connection.
    public func packetsReceived(on connection: QUICLoopConnection) { chosen?.packetsReceived(on: connection) }
}
