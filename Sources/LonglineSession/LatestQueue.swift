import DequeModule

/// A bounded queue of news: what is put in under a key takes the place of what waits there, and beyond the limit the
/// longest waiting goes.
///
/// For what is worth only its newest state. Nothing here is too old by itself: whoever takes out looks at the time.
package struct LatestQueue<Key: Hashable, Element> {
    private let limit: Int
    private var order: Deque<Key> = []
    private var elements: [Key: Element] = [:]

    /// A queue of so many keys, 1 or more.
    package init(limit: Int) {
        precondition(limit > 0)
        self.limit = limit
    }

    package var isEmpty: Bool { order.isEmpty }
    package var count: Int { order.count }

    /// Puts an element in. One that takes another's place stands where that one stood, so that who is always new is not
    /// always last.
    /// - Returns: how many elements were dropped for it, 0 or 1.
    @discardableResult
    package mutating func put(_ element: Element, for key: Key) -> Int {
        guard elements.updateValue(element, forKey: key) == nil else { return 1 }
        order.append(key)
        guard order.count > limit, let oldest = order.popFirst() else { return 0 }
        elements[oldest] = nil
        assert(order.count == elements.count)
        return 1
    }

    /// Takes out what waits longest.
    package mutating func popFirst() -> (key: Key, element: Element)? {
        guard let key = order.popFirst(), let element = elements.removeValue(forKey: key) else { return nil }
        return (key, element)
    }

    /// Forgets what waits under these keys.
    package mutating func remove(_ keys: Set<Key>) {
        order.removeAll { keys.contains($0) }
        for key in keys { elements[key] = nil }
    }

    /// Takes out everything, in the order in which the keys came.
    package mutating func takeAll() -> [Element] {
        defer { removeAll() }
        return order.compactMap { elements[$0] }
    }

    package mutating func removeAll() {
        order.removeAll()
        elements.removeAll()
    }
}

extension LatestQueue: Sendable where Key: Sendable, Element: Sendable {}
