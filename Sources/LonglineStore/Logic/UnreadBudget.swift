/// How many entries are looked at to count what is unread, for several conversations together: who counts in many long ones would be
/// everybody's who waits for the reader, or the writer.
struct UnreadBudget {
    private let limit: Int
    private let least: Int
    private var left: Int

    /// - Parameter least: for each conversation in any case.
    init(_ limits: StoreLimits, least: Int) {
        limit = max(1, limits.unreadEntries)
        self.least = min(limit, least)
        left = 4 * limit
    }

    /// For the next conversation.
    var next: Int { max(min(limit, left), least) }

    mutating func spend(_ looked: Int) { left = max(0, left - looked) }
}
