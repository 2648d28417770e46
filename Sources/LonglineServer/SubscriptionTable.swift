import LonglineStore

/// Who listens to which channel on one event loop.
///
/// Most inboxes have one subscriber, so that one costs no table of its own. Payloads never pass here: a subscriber is
/// woken and reads the log.
struct SubscriptionTable<Subscriber: AnyObject> {
    private enum Subscribers {
        case one(Subscriber)
        case many([ObjectIdentifier: Subscriber])
    }

    private var channels: [ChannelKey: Subscribers] = [:]
    /// Pairs of channel and subscriber.
    private(set) var count = 0

    /// Adds a subscriber; adding it again changes nothing.
    mutating func insert(_ subscriber: Subscriber, for channel: ChannelKey) {
        switch channels[channel] {
        case nil:
            channels[channel] = .one(subscriber)
            count += 1
        case .one(let other):
            guard other !== subscriber else { return }
            channels[channel] = .many([ObjectIdentifier(other): other, ObjectIdentifier(subscriber): subscriber])
            count += 1
        case .many(var table):
            channels[channel] = nil  // else the table is copied
            if table.updateValue(subscriber, forKey: ObjectIdentifier(subscriber)) == nil { count += 1 }
            channels[channel] = .many(table)
        }
    }

    /// Removes a subscriber, if it is one.
    mutating func remove(_ subscriber: Subscriber, for channel: ChannelKey) {
        switch channels[channel] {
        case nil: return
        case .one(let other):
            guard other === subscriber else { return }
            channels[channel] = nil
            count -= 1
        case .many(var table):
            channels[channel] = nil
            if table.removeValue(forKey: ObjectIdentifier(subscriber)) != nil { count -= 1 }
            if table.count == 1, let last = table.first?.value {
                channels[channel] = .one(last)
            } else if !table.isEmpty {
                channels[channel] = .many(table)
            }
        }
    }

    /// The subscribers of a channel.
    func count(of channel: ChannelKey) -> Int {
        switch channels[channel] {
        case nil: 0
        case .one: 1
        case .many(let table): table.count
        }
    }

    /// Calls for each subscriber of a channel. The table must not be changed meanwhile.
    func forEach(of channel: ChannelKey, _ body: (Subscriber) -> Void) {
        switch channels[channel] {
        case nil: return
        case .one(let subscriber): body(subscriber)
        case .many(let table): for subscriber in table.values { body(subscriber) }
        }
    }
}
