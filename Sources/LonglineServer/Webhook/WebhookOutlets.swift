import LonglineStore
import LonglineWire

/// What may leave to the apps' endpoints: no more at a time than each takes, and nothing to one that is down.
struct WebhookOutlets {
    /// How a request ended, or what was taken to be one.
    enum End {
        /// The endpoint answered, whatever it said.
        case answered
        case failed
        /// Nothing left, or nothing that tells anything about the endpoint.
        case withdrawn
    }

    private struct Outlet {
        let maximumInFlight: Int
        var breaker: CircuitBreaker
        var inFlight = 0

        init(_ settings: WebhookSettings) {
            maximumInFlight = settings.maximumInFlight
            breaker = CircuitBreaker(settings)
        }
    }

    /// By tenant; nil for those that aren't named.
    private var outlets: [TenantID?: Outlet]

    init(_ settings: [TenantID?: WebhookSettings]) { outlets = settings.mapValues(Outlet.init) }

    /// Endpoints that are left alone.
    var down: Int { outlets.values.count(where: \.breaker.isOpen) }

    private func slot(_ tenant: TenantID) -> TenantID? { outlets[tenant] == nil ? nil : tenant }

    /// Takes what is due and may leave now.
    mutating func take(from queue: inout WebhookQueue, now: UInt64) -> [WebhookQueue.Taken] {
        var ready: [WebhookQueue.Taken] = []
        while let taken = queue.take(now: now) {
            let slot = slot(taken.notification.key.tenant)
            guard var outlet = outlets[slot] else {
                // A tenant that had a webhook before the server was started anew.
                queue.giveUp(taken)
                continue
            }
            guard outlet.inFlight < outlet.maximumInFlight else {
                queue.postpone(taken, until: now + 50)
                continue
            }
            let breaker = outlet.breaker.admits(now: now)
            guard breaker.admits else {
                queue.postpone(taken, until: breaker.until)
                continue
            }
            outlet.inFlight += 1
            outlets[slot] = outlet
            ready.append(taken)
        }
        return ready
    }

    /// What was taken for a tenant's user has come to its end.
    mutating func ended(_ end: End, of tenant: TenantID, now: UInt64) {
        let slot = slot(tenant)
        outlets[slot]?.inFlight -= 1
        switch end {
        case .answered: outlets[slot]?.breaker.succeeded()
        case .failed: outlets[slot]?.breaker.failed(now: now)
        case .withdrawn: outlets[slot]?.breaker.withdrew()
        }
    }
}
