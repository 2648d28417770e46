/// Events that wait for the owner: those of each connection in their order, the connections in turns. Who has one event waits for a
/// turn of each connection before it, and not for all that these have.
///
/// All lie in one array whose free places are linked as well: an event costs no allocation, and a connection without any no memory.
struct WaitingEvents {
    /// Those of one connection: where the first and the last of them are.
    struct List {
        /// -1: there is none.
        fileprivate var first: Int32 = -1
        fileprivate var last: Int32 = -1
    }

    private struct Item {
        /// nil: a datagram that waits at the connection, or a free place.
        var event: QUICConnectionEvent?
        /// Where the connection's next one is, or the next free place; -1: there is none.
        var next: Int32
    }

    /// Events that a turn may have in any case. A packet mostly brings fewer.
    static let shortestTurn = 8
    /// Events that the turns of all connections may have together where few have any, and turns are longer than that: what handlers write
    /// for one leaves together.
    static let roundLength = 1024
    /// More places than these are given back once all are free.
    private static let keptPlaces = 1024

    private var items: [Item] = []
    /// The first free place; -1: there is none.
    private var free: Int32 = -1
    /// Connections that have any, each once. It is the first one's turn.
    private var turns = FIFO<QUICEngineConnection>()
    /// Events taken in this turn.
    private var taken = 0
    private(set) var count = 0

    /// Places, free ones among them.
    var placeCount: Int { items.count }

    /// - Parameter event: nil for a datagram that waits at the connection.
    mutating func append(_ event: QUICConnectionEvent?, of connection: QUICEngineConnection) {
        let place = put(event)
        if connection.waitingEvents.first < 0 {
            connection.waitingEvents.first = place
            turns.append(connection)
        } else {
            items[Int(connection.waitingEvents.last)].next = place
        }
        connection.waitingEvents.last = place
        count += 1
    }

    private mutating func put(_ event: QUICConnectionEvent?) -> Int32 {
        guard free >= 0 else {
            // Memory ends long before the numbers do: so many places take 48 GiB.
            items.append(Item(event: event, next: -1))
            return Int32(items.count - 1)
        }
        let place = free
        free = items[Int(place)].next
        items[Int(place)] = Item(event: event, next: -1)
        return place
    }

    /// Takes the next one. The connection is handed out, so that it isn't let go of in here.
    mutating func popFirst() -> (connection: QUICEngineConnection, event: QUICConnectionEvent?)? {
        guard let connection = turns.first else { return nil }
        let place = connection.waitingEvents.first
        var item = Item(event: nil, next: free)
        swap(&item, &items[Int(place)])
        free = place
        count -= 1
        connection.waitingEvents.first = item.next
        taken += 1
        if item.next < 0 {
            endTurn()
            if count == 0, items.count > Self.keptPlaces { removePlaces() }
        } else if taken >= Self.shortestTurn, taken * turns.count >= Self.roundLength {
            endTurn()
            turns.append(connection)
        }
        return (connection, item.event)
    }

    private mutating func endTurn() {
        _ = turns.popFirst()
        taken = 0
    }

    private mutating func removePlaces() {
        items.removeAll()
        free = -1
    }
}
