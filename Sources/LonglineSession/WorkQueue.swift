import DequeModule

/// First in, first out. It takes no memory while nothing waits: most sessions have nothing to do most of the time.
struct WorkQueue<Element> {
    fileprivate var elements = Deque<Element>()

    var isEmpty: Bool { elements.isEmpty }
    var count: Int { elements.count }

    mutating func append(_ element: Element) { elements.append(element) }

    /// The oldest element; nil when there is none, and then the room for elements is given back.
    mutating func popFirst() -> Element? {
        if let element = elements.popFirst() { return element }
        elements = []
        return nil
    }

    mutating func removeAll() { elements = [] }

    /// Forgets those for which `isKept` says no.
    mutating func keep(where isKept: (Element) -> Bool) { elements.removeAll { !isKept($0) } }
}

extension WorkQueue where Element: Equatable {
    func contains(_ element: Element) -> Bool { elements.contains(element) }
}

extension WorkQueue: Sendable where Element: Sendable {}
