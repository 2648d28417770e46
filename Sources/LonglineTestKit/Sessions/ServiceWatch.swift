import LonglineWire
import NIOCore

/// Watches what the app's own server is promised: a message under one idempotency key is entered once, whatever is repeated, and has
/// one answer; of what was answered about a user nothing is left once the user's account is erased.
struct ServiceWatch {
    private var orders: [UInt64: ServiceOrder] = [:]
    private var answers: [UInt64: ServiceAnswer] = [:]
    /// By which number the ledger was last asked for a message.
    private var numbers: [UInt64: PublishID] = [:]
    /// Of which nobody may know any more what became of them, as their sender's account is or was erased.
    private var mayBeForgotten: Set<UInt64> = []
    private var isForgotten: Set<UInt64> = []
    private var erasing: Set<UserID> = []
    /// Those from before the store was replaced by an older one, which may lack what was answered.
    private var beforeReplacement: Set<UInt64> = []
    /// Those that are not asked for any more.
    private var expired: Set<UInt64> = []

    func knows(_ number: UInt64) -> Bool { orders[number] != nil }

    mutating func ordered(_ order: ServiceOrder) {
        orders[order.number] = order
        if erasing.contains(order.sender) { mayBeForgotten.insert(order.number) }
    }

    /// The keys of all messages so far are forgotten, as nobody asked for so long: nobody asks any more.
    mutating func keysExpired() { expired = Set(orders.keys) }

    /// The ledger is asked for a message, by a number.
    mutating func asked(_ order: ServiceOrder, as number: PublishID) { numbers[order.number] = number }

    /// An account is to be erased.
    mutating func erasureResolved(_ user: UserID) {
        erasing.insert(user)
        for order in orders.values where order.sender == user { mayBeForgotten.insert(order.number) }
    }

    /// Nothing is left of an account.
    mutating func erased(_ user: UserID) {
        erasing.remove(user)
        for order in orders.values where order.sender == user && answers[order.number] != nil {
            isForgotten.insert(order.number)
        }
    }

    mutating func storeReplaced() {
        beforeReplacement = Set(orders.keys)
        answers = [:]
    }

    /// The app's own server is told what became of a message.
    /// - Returns: what is wrong with that.
    mutating func answered(_ order: ServiceOrder, _ answer: ServiceAnswer, truth: Truth) -> String? {
        let number = order.number
        if answer == .later { return nil }
        guard let first = answers[number] else {
            answers[number] = answer
            return problem(of: answer, order, truth)
        }
        if answer == .unknown, mayBeUnknown(order, truth) { return nil }
        if isForgotten.contains(number), case .entered = answer {
            return "message \(number) of \(order.sender) is still known, whose account was erased"
        }
        return first == answer || beforeReplacement.contains(number)
            ? nil : "message \(number) was answered with \(first), then with \(answer)"
    }

    private func problem(of answer: ServiceAnswer, _ order: ServiceOrder, _ truth: Truth) -> String? {
        switch answer {
        case .entered(let place):
            let log = truth.logs[place.channel]
            let entry = log?.epoch == place.position.epoch ? log?.entry(at: place.position.offset) : nil
            let isThere = entry.flatMap { MessageChecker.number(of: $0.payload) } == order.number
            return isThere && place.channel == order.log || beforeReplacement.contains(order.number)
                ? nil : "message \(order.number) was answered at \(place.position), and is not there"
        case .refused(let code):
            // The app's own server may publish everywhere, and its messages are valid: only a block refuses one, or that a sweep took the
            // room.
            let isExpected = code == .blocked || code == .unknownChannel && truth.logs[order.log] == nil
            return isExpected ? nil : "message \(order.number) was refused with \(code.rawValue) for no reason"
        case .unknown:
            return mayBeUnknown(order, truth) ? nil : "nobody knows what became of message \(order.number)"
        case .later: return nil
        }
    }

    private func mayBeUnknown(_ order: ServiceOrder, _ truth: Truth) -> Bool {
        if beforeReplacement.contains(order.number) || mayBeForgotten.contains(order.number) { return true }
        guard let asked = numbers[order.number] else { return false }
        // One ledger knows all that the app's own server publishes for a user into a log. It remembers so many, and forgets the lowest
        // numbers first; those grow along the log. What the user's own devices publish there is in others.
        let entries = truth.logs[order.log]?.entries ?? []
        return entries.count { $0.publishID > asked && isInLedger($0, beside: order) } >= SimulatedStore.remembered
    }

    private func isInLedger(_ entry: Entry, beside order: ServiceOrder) -> Bool {
        guard entry.origin == nil, let number = MessageChecker.number(of: entry.payload) else { return false }
        return number != order.number && orders[number]?.sender == order.sender
    }

    /// What is wrong in the end.
    func problems(truth: Truth) -> [String] {
        var records: [UInt64: Int] = [:]
        var copies: [UInt64: Int] = [:]
        var problems: [String] = []
        for (channel, log) in truth.allLogs {
            for entry in log.entries where entry.publishID != 0 {
                guard let number = MessageChecker.number(of: entry.payload), let order = orders[number] else {
                    continue
                }
                let copied = order.recipient.map { ChannelID.user($0) }
                let place: ChannelID? = entry.origin == nil ? order.log : copied
                if place != channel { problems.append("message \(number) stands in \(channel)") }
                if order.payload != entry.payload { problems.append("message \(number) is not what was published") }
                if entry.origin == nil { records[number, default: 0] += 1 } else { copies[number, default: 0] += 1 }
            }
        }
        for (number, order) in orders.sorted(by: { $0.key < $1.key }) {
            let count = records[number] ?? 0
            if count > 1 { problems.append("message \(number) of the app's server was entered \(count) times") }
            let owed = order.recipient == nil ? 0 : count - (truth.withheld[number] ?? 0)
            if copies[number] ?? 0 != owed {
                problems.append("message \(number) has \(count) records and \(copies[number] ?? 0) copies")
            }
            switch answers[number] {
            case nil where !beforeReplacement.contains(number) && !expired.contains(number):
                problems.append("message \(number) of the app's server never got an answer")
            case .entered? where count == 0 && !beforeReplacement.contains(number):
                problems.append("message \(number) was answered and is gone")
            case .refused? where count > 0: problems.append("message \(number) was refused and entered")
            default: break
            }
        }
        return problems
    }
}
