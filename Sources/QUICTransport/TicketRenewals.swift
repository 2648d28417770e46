internal import Glibc
internal import NIOCore
internal import QUICEngine
internal import Synchronization

/// Which tickets are worth a full handshake in the background. A resumed session never extends its ticket's life, so a
/// client that always resumes would be a stranger again every seven days, in the midst of what its user does.
final class TicketRenewals: Sendable {
    /// Seconds before a ticket's end from which on it is renewed.
    private let margin: UInt64
    /// Seconds between two tries for one server.
    private static let pause: UInt64 = 3600
    /// Servers remembered at most; the rest may be tried again too soon.
    private static let limit = 1024

    private let tries = Mutex<[SessionCacheKey: UInt64]>([:])

    init(margin: TimeAmount) { self.margin = UInt64(max(margin.nanoseconds, 0)) / 1_000_000_000 }

    /// When a ticket is due, from now; nil: it is over.
    func delay(until expiry: UInt64) -> TimeAmount? {
        let now = Self.now
        guard expiry > now else { return nil }
        let left = expiry - now
        return .seconds(left > margin ? Int64(clamping: left - margin) : 0)
    }

    /// Takes the right to try now.
    func claim(_ key: SessionCacheKey) -> Bool {
        let now = Self.now
        return tries.withLock { tries in
            if let last = tries[key], now < last + Self.pause { return false }
            if tries.count >= Self.limit { tries.removeAll() }
            tries[key] = now
            return true
        }
    }

    private static var now: UInt64 { UInt64(time(nil)) }
}

/// Waits for a ticket and leaves.
final class TicketRenewalHandler: QUICConnectionHandler {
    /// A server that gives no ticket isn't waited for longer.
    private static let patience = TimeAmount.seconds(10)
    private let onTicket: (SessionTicket) -> Void

    init(onTicket: @escaping (SessionTicket) -> Void) { self.onTicket = onTicket }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .sessionTicket(let ticket):
            onTicket(ticket)
            connection.close(code: 0, reason: "")
        case .handshakeCompleted:
            connection.eventLoop.assumeIsolated().scheduleTask(in: Self.patience) {
                connection.close(code: 0, reason: "")
            }
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
