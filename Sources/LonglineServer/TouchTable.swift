import LonglineWire

/// With whom of the users that matter to a session its own user is in touch: what the store said last. Two users are out of
/// touch while one of them blocks the other.
///
/// Of one other user:
/// ```
///               asked                answer of the same number
///   unknown -----------> asked(n) ----------------------------> inTouch or outOfTouch
///      ^                  |    ^                                         |
///      '--- forgotten ----'    '------- something changed, asked anew ---'
/// ```
/// An answer that was on its way when something changed has an old number and counts for nothing.
struct TouchTable {
    private enum Touch: Equatable {
        case asked(UInt64), inTouch, outOfTouch
    }

    private var users: [UserID: Touch] = [:]
    private var lastNumber: UInt64 = 0

    var count: Int { users.count }

    /// Whether the two are in touch; nil while that is not known.
    func isInTouch(with user: UserID) -> Bool? {
        switch users[user] {
        case .inTouch: true
        case .outOfTouch: false
        case .asked, nil: nil
        }
    }

    func contains(_ user: UserID) -> Bool { users[user] != nil }

    /// The store is asked about users; what was known of them is no more.
    /// - Returns: the number of the question.
    mutating func ask(about asked: some Sequence<UserID>) -> UInt64 {
        lastNumber += 1
        for user in asked { users[user] = .asked(lastNumber) }
        return lastNumber
    }

    /// Those of whom nothing but this question is known.
    func waiting(for number: UInt64, of asked: some Sequence<UserID>) -> [UserID] {
        asked.filter { users[$0] == .asked(number) }
    }

    /// The store answered.
    /// - Returns: the users of whom this is news.
    mutating func answered(
        _ number: UInt64, about asked: some Sequence<UserID>, outOfTouch: Set<UserID>
    ) -> [UserID] {
        let news = waiting(for: number, of: asked)
        for user in news { users[user] = outOfTouch.contains(user) ? .outOfTouch : .inTouch }
        return news
    }

    mutating func forget(_ gone: some Sequence<UserID>) {
        for user in gone { users[user] = nil }
    }

    mutating func forget(allBut kept: Set<UserID>) { users = users.filter { kept.contains($0.key) } }
}
