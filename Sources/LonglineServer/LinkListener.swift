import NIOCore
import QUICEngine

/// Sockets that bring links. One for each transport a server offers.
protocol LinkListener: Sendable {
    /// Where it listens, with the ports that the system chose.
    var localAddresses: [SocketAddress] { get }
    /// Serves new connections with another certificate.
    func reloadCertificate(_ credentials: TLSServerCredentials) throws
    /// Takes no new connections; those that live go on.
    func stopAccepting() async
    /// Closes what is left of connections, waits at most so long until that has left, and closes the sockets.
    func close(timeout: TimeAmount) async
}
