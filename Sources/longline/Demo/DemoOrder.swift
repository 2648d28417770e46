/// Judges a numbered series of messages: which are missing, doubled, or out of order.
struct DemoOrder {
    private(set) var missing = 0
    private(set) var doubled = 0
    private(set) var disordered = 0

    /// - Parameters:
    ///   - seen: the numbers in the order they arrived.
    ///   - count: the series is 1...count.
    init(seen: [Int], of count: Int) {
        var times: [Int: Int] = [:]
        var last = 0
        for number in seen {
            times[number, default: 0] += 1
            if number < last { disordered += 1 }
            last = max(last, number)
        }
        missing = (1...max(count, 1)).filter { times[$0] == nil }.count
        doubled = times.values.filter { $0 > 1 }.count
    }

    var isPerfect: Bool { missing == 0 && doubled == 0 && disordered == 0 }

    var description: String { "\(missing) lost, \(doubled) doubled, \(disordered) out of order" }

    /// The number behind a prefix such as `a-17`; nil for other messages.
    static func number(in text: String, after prefix: String) -> Int? {
        text.hasPrefix(prefix) ? Int(text.dropFirst(prefix.count)) : nil
    }
}
