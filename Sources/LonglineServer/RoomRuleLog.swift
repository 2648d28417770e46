import LonglineStore
import LonglineWire
import Synchronization

/// When it last changed who may publish in a room, for the sessions that remember what the store said about that.
///
/// Loops tell and ask it while they run; the lock is held for one look at a table.
final class RoomRuleLog: Sendable {
    private struct State {
        var count: UInt64 = 0
        /// The last change that a room may have had that isn't listed.
        var unlisted: UInt64 = 0
        var last: [ChannelKey: UInt64] = [:]
    }

    /// Rooms that are listed. Beyond it the list begins anew, and who remembers something asks once more.
    static let limit = 4_096
    private let state = Mutex(State())

    /// Changes so far: taken before the store is asked, it dates the answer.
    var count: UInt64 { state.withLock { $0.count } }

    /// It may have changed in a room: told once the store has it, and before anybody else is told.
    func changed(_ room: ChannelKey) {
        state.withLock { state in
            if state.last.count >= Self.limit, state.last[room] == nil {
                state.last.removeAll(keepingCapacity: true)
                state.unlisted = state.count
            }
            state.count += 1
            state.last[room] = state.count
        }
    }

    /// Whether what the store said of a room still holds, being asked after so many changes.
    func isCurrent(_ room: ChannelKey, asOf count: UInt64) -> Bool {
        state.withLock { ($0.last[room] ?? $0.unlisted) <= count }
    }
}

extension RoomChange {
    /// Whether a user may have another right to publish by it than by what was known of an earlier moment. Joining changes
    /// that of nobody: who joins was no member, and what was known before ended with the leave.
    var mayChangeWhoPublishes: Bool {
        switch self {
        case .join, .act(.add): false
        case .appoint, .dissolve, .leave, .act: true
        }
    }
}
