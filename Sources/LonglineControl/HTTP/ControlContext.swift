import Hummingbird
import Logging
import NIOCore

/// Which listener a request came by.
public enum ControlListener: String, Hashable, Sendable, CaseIterable {
    /// The one for clients and app servers. Over HTTP/3, too.
    case service
    /// The one for operators, which has every route.
    case admin
}

/// Where a request comes from.
struct ControlRequestSource: RequestContextSource {
    var logger: Logger
    var audit: Logger
    var requestID: String
    var listener: ControlListener
    var remote: SocketAddress?
}

/// What goes with a request on its way to a route.
struct ControlContext: RequestContext {
    typealias Source = ControlRequestSource

    var coreContext: CoreRequestContextStorage
    /// Says what was done for whom, which only who has a credential causes: no limit leaves out a line of it.
    let audit: Logger
    /// Names the request in the log; its caller gets it, too.
    let requestID: String
    let listener: ControlListener
    let remote: SocketAddress?

    init(source: ControlRequestSource) {
        coreContext = CoreRequestContextStorage(source: source)
        audit = source.audit
        requestID = source.requestID
        listener = source.listener
        remote = source.remote
    }

    /// Whether the request comes from a process of this machine.
    var isFromThisMachine: Bool {
        guard let remote else { return false }
        if case .unixDomainSocket = remote { return true }
        return remote.isLoopback
    }
}

extension SocketAddress {
    /// Whether only processes of this machine come from it, or get to it.
    var isLoopback: Bool {
        guard let host = ipAddress else { return false }
        return host == "::1" || host.hasPrefix("127.") || host.hasPrefix("::ffff:127.")
    }
}
