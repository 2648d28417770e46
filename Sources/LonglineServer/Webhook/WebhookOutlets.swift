import LonglineStore
import LonglineWire

/// What may leave to the apps' endpoints: no more at a time than each takes, and nothing to one that is down.
///
/// Its times are those of ``WebhookClock/steady``.
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

        /// When the next request may leave, 0 for at once; nil: not before one is over.
        var opening: UInt64? { inFlight < maximumInFlight ? breaker.opening : nil }

        mutating func admits(now: UInt64) -> Bool {
            guard inFlight < maximumInFlight, breaker.admits(now: now) else { return false }
            inFlight += 1
            return true
        }
    }

    /// By tenant; nil for those that aren't named.
    private var outlets: [TenantID?: Outlet]
    private let slots: [TenantID?]

    init(_ settings: [TenantID?: WebhookSettings]) {
        outlets = settings.mapValues(Outlet.init)
        slots = Array(settings.keys)
    }

    /// Endpoints that are left alone.
    var down: Int { outlets.values.count(where: \.breaker.isOpen) }

    /// The tenants that have an endpoint of their own.
    var named: Set<TenantID> { Set(outlets.keys.compactMap(\.self)) }

    /// Takes what is due and may leave now. What has to wait is not touched, however much it is: the event loops wait for a lock
    /// meanwhile.
    mutating func take(from queue: inout WebhookQueue, now: UInt64) -> [WebhookQueue.Taken] {
        var ready: [WebhookQueue.Taken] = []
        for slot in slots {
            while let due = queue.nextTime(for: slot), due <= now, outlets[slot]?.admits(now: now) == true,
                let taken = queue.take(for: slot, now: now)
            {
                ready.append(taken)
            }
        }
        return ready
    }

    /// When the next of what waits may leave; nil: not before a request is over, or there are news.
    func nextTime(_ queue: WebhookQueue) -> UInt64? {
        slots.compactMap { slot in
            guard let due = queue.nextTime(for: slot), let opening = outlets[slot]?.opening else { return nil }
            return max(due, opening)
        }.min()
    }

    /// What was taken for a tenant's user has come to its end.
    mutating func ended(_ end: End, of tenant: TenantID, now: UInt64) {
        let slot = outlets[tenant] == nil ? nil : tenant
        outlets[slot]?.inFlight -= 1
        switch end {
        case .answered: outlets[slot]?.breaker.succeeded()
        case .failed: outlets[slot]?.breaker.failed(now: now)
        case .withdrawn: outlets[slot]?.breaker.withdrew()
        }
    }
}
