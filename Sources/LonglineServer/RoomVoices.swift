import LonglineSession
import LonglineWire
import NIOCore

/// In which rooms a session's user may publish, as far as its signals asked for it, and the signals that wait for the answer.
///
/// Of one room:
/// ```
///               asked, signals wait in order            answer
///   unknown ---------------------------------> waiting ---------> known, as of a count of changes
///      ^                                          |                              |
///      '------- no answer, or no member ----------'                              |
///      '--- the room's RoomRuleLog has a later change, or it is ``lifetime`` ago --'
/// ```
struct RoomVoices {
    private struct Voice {
        var mayPublish: Bool
        var asOf: UInt64
        let until: NIODeadline
    }

    /// How long an answer holds. Another server on the same store changes a room without a word to this one.
    static let lifetime = TimeAmount.seconds(60)

    /// Rooms of which it is kept. Beyond it all are forgotten, and asked about once more.
    private static let maximumKnown = 64
    /// Signals that wait in a room: more than the defaults of a user's rate let come while the store is asked.
    private static let maximumWaiting = 64

    private var known: [RoomID: Voice] = [:]
    private var waiting: [RoomID: LatestQueue<SignalInFlight.Key, SignalInFlight>] = [:]

    /// Whether the user may publish in a room.
    /// - Parameter isCurrent: whether what was known after so many changes still holds.
    /// - Returns: nil when it is not known, or others wait for the answer: behind these it has to stand.
    func mayPublish(in room: RoomID, now: NIODeadline, isCurrent: (_ asOf: UInt64) -> Bool) -> Bool? {
        guard waiting[room] == nil, let voice = known[room], now < voice.until, isCurrent(voice.asOf) else {
            return nil
        }
        return voice.mayPublish
    }

    /// What the store said, asked after so many changes.
    mutating func learn(_ mayPublish: Bool, in room: RoomID, asOf count: UInt64, now: NIODeadline) {
        if known[room] == nil, known.count >= Self.maximumKnown { known.removeAll(keepingCapacity: true) }
        known[room] = Voice(mayPublish: mayPublish, asOf: count, until: now + Self.lifetime)
    }

    /// Has a signal wait until it is known.
    /// - Returns: whether the store has to be asked, and how many signals were dropped for it.
    mutating func wait(_ signal: SignalInFlight, in room: RoomID) -> (asks: Bool, dropped: Int) {
        let asks = waiting[room] == nil
        let dropped = waiting[room, default: LatestQueue(limit: Self.maximumWaiting)].put(signal, for: signal.key)
        return (asks, dropped)
    }

    /// The store answered, or failed.
    /// - Returns: what waited for it, in its order.
    mutating func takeWaiting(in room: RoomID) -> [SignalInFlight] {
        var queue = waiting.removeValue(forKey: room)
        return queue?.takeAll() ?? []
    }
}
