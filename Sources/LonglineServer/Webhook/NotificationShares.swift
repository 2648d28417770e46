import LonglineStore
import LonglineWire

/// Who has how much of what waits to be told, so that who has the most gives way when there is no room: of the tenant with the most
/// its sender with the most, and of that one's the oldest.
///
/// The waiting ones of a sender are a list by their orders, which grow. Each call costs as much as finding a place in a heap of the
/// senders.
struct NotificationShares {
    typealias Key = PendingNotification.Key

    fileprivate struct Place {
        let key: Key
        let sender: UserID
        var previous: UInt64?
        var next: UInt64?
    }
    fileprivate struct Sender {
        /// Of two with as much, who began earlier has the lower one, and gives way first.
        let number: UInt64
        var first: UInt64
        var last: UInt64
        var count = 0
    }
    fileprivate struct Tenant {
        let number: UInt64
        var count = 0
        var senders: [UserID: Sender] = [:]
        /// Who has the most is due first.
        var most = DueTimes<UserID>()
    }

    private var places: [UInt64: Place] = [:]
    private var tenants: [TenantID: Tenant] = [:]
    private var most = DueTimes<TenantID>()

    /// What gives way first.
    var first: Key? {
        guard let tenant = most.first.flatMap({ tenants[$0.key] }),
            let sender = tenant.most.first.flatMap({ tenant.senders[$0.key] })
        else { return nil }
        return places[sender.first]?.key
    }

    /// One more waits.
    /// - Parameter order: higher than any before.
    mutating func add(_ key: Key, from sender: UserID, order: UInt64) {
        let previous = tenants[key.tenant, default: Tenant(number: order)].append(order, of: sender)
        places[order] = Place(key: key, sender: sender, previous: previous)
        if let previous { places[previous]?.next = order }
        rank(key.tenant)
    }

    /// What has an order waits no more, if it did.
    mutating func remove(order: UInt64) {
        guard let place = places.removeValue(forKey: order) else { return }
        if let previous = place.previous { places[previous]?.next = place.next }
        if let next = place.next { places[next]?.previous = place.previous }
        tenants[place.key.tenant]?.remove(place)
        rank(place.key.tenant)
    }

    private mutating func rank(_ tenant: TenantID) {
        guard let (number, count) = tenants[tenant].map({ ($0.number, $0.count) }) else { return }
        if count > 0 { return most.insert(tenant, time: .max - UInt64(count), order: number) }
        tenants[tenant] = nil
        most.remove(order: number)
    }
}

extension NotificationShares.Tenant {
    /// - Returns: the sender's last one before.
    fileprivate mutating func append(_ order: UInt64, of user: UserID) -> UInt64? {
        let known = senders[user]
        var sender = known ?? NotificationShares.Sender(number: order, first: order, last: order)
        sender.last = order
        sender.count += 1
        count += 1
        set(sender, user)
        return known?.last
    }

    fileprivate mutating func remove(_ place: NotificationShares.Place) {
        guard var sender = senders[place.sender] else { return }
        if place.previous == nil, let next = place.next { sender.first = next }
        if place.next == nil, let previous = place.previous { sender.last = previous }
        sender.count -= 1
        count -= 1
        set(sender, place.sender)
    }

    private mutating func set(_ sender: NotificationShares.Sender, _ user: UserID) {
        if sender.count > 0 {
            senders[user] = sender
            most.insert(user, time: .max - UInt64(sender.count), order: sender.number)
        } else {
            senders[user] = nil
            most.remove(order: sender.number)
        }
    }
}
