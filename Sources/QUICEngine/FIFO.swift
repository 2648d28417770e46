/// A first-in first-out queue over an array whose front moves.
struct FIFO<Element> {
    private var items: [Element?] = []
    private var head = 0

    var count: Int { items.count - head }
    var isEmpty: Bool { head == items.count }

    mutating func append(_ element: Element) { items.append(element) }

    mutating func popFirst() -> Element? {
        guard head < items.count else { return nil }
        let element = items[head].take()
        head += 1
        if head == items.count {
            items.removeAll(keepingCapacity: items.count <= 64)
            head = 0
        } else if head > 64, head > items.count / 2 {
            items.removeFirst(head)
            head = 0
        }
        return element
    }

    var first: Element? { head < items.count ? items[head] : nil }

    /// The element so many places behind the first.
    subscript(offset: Int) -> Element {
        get {
            guard let element = items[head + offset] else { preconditionFailure("no element \(offset) of \(count)") }
            return element
        }
        set {
            precondition(offset < count)
            items[head + offset] = newValue
        }
    }

    mutating func removeAll() {
        items.removeAll()
        head = 0
    }

    mutating func removeAll(where matches: (Element) -> Bool) {
        items = items[head...].filter { $0.map { !matches($0) } ?? false }
        head = 0
    }

    func forEach(_ body: (Element) -> Void) {
        for item in items[head...] { if let item { body(item) } }
    }
}
