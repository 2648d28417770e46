import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Gathers what is to be kept of presence, and writes it once in a while: one row a user, however often the user came and
/// went, many users in a transaction. It is never in anybody's way.
///
/// ```
///           put                 delay over              written
///   (none) -----> pending -----------------> writing ------------> (none)
///                    ^                          | no room: back, and longer delays
///                    '--------------------------'
/// ```
/// What waits here is lost when the process is killed: when a user was last seen is then as old as the write before.
final class PresenceWriter: Sendable {
    private struct State {
        var pending: [UserKey: PresenceNote] = [:]
        /// On its way to the store.
        var writing: [UserKey: PresenceNote] = [:]
        /// Who waits until nothing of a user is being written.
        var forgetting: [(user: UserKey, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let records: any PresenceRecords
    private let pacer: WritePacer
    private let onFailure: @Sendable (StoreError) -> Void
    private let state = Mutex(State())

    /// Users whose news wait; beyond, when somebody was seen is not noted while the store has no room.
    private static let maximumPending = 1_000_000
    /// Users in one transaction.
    private static let batch = 500
    /// After a write failed, the next waits for so many delays.
    private static let failureDelays: Int64 = 10

    init(records: any PresenceRecords, delay: TimeAmount, onFailure: @escaping @Sendable (StoreError) -> Void) {
        self.records = records
        pacer = WritePacer(delay: delay, failureDelays: Self.failureDelays)
        self.onFailure = onFailure
    }

    /// Takes news, which go together with what waits of the same user.
    func put(_ note: PresenceNote) {
        let key = UserKey(tenant: note.tenant, user: note.user)
        state.withLock { state in
            if state.pending[key] == nil, state.pending.count >= Self.maximumPending, note.visibility == nil { return }
            state.pending[key] = state.pending[key].map { Self.merge($0, note) } ?? note
        }
        pacer.noteWork()
    }

    /// What is known of a user, with what is not in the store yet.
    func newest(_ record: PresenceRecord, of user: UserKey) -> PresenceRecord {
        let (writing, pending) = state.withLock { ($0.writing[user], $0.pending[user]) }
        var record = record
        for case let note? in [writing, pending] {
            if let seen = note.lastSeen { record.lastSeen = max(record.lastSeen, seen) }
            if let visibility = note.visibility { record.visibility = visibility }
        }
        return record
    }

    /// Drops what waits of a user whose account goes, and returns when nothing of it is being written.
    func forget(_ user: UserKey) async {
        await withCheckedContinuation { continuation in
            state.withLock { state in
                state.pending[user] = nil
                state.forgetting.append((user, continuation))
            }
            tellForgetting()
        }
    }

    private func tellForgetting() {
        let done = state.withLock { state in
            let done = state.forgetting.filter { state.writing[$0.user] == nil }
            let writing = state.writing
            state.forgetting.removeAll { writing[$0.user] == nil }
            return done
        }
        for waiter in done { waiter.continuation.resume() }
    }

    /// Writes what is put in, until ``stop()``; then writes the rest and returns. Its task's cancellation only ends a delay:
    /// stop it first.
    func run() async { await pacer.run { await self.flush() } }

    /// Lets ``run()`` end.
    func stop() { pacer.stop() }

    /// Writes what waits now.
    /// - Returns: whether all of it was written. What was not waits on.
    @discardableResult
    func flush() async -> Bool {
        let notes = state.withLock { state in
            assert(state.writing.isEmpty, "flush() runs twice")
            state.writing = state.pending
            state.pending = [:]
            return Array(state.writing)
        }
        var isWritten = true
        for start in stride(from: 0, to: notes.count, by: Self.batch) {
            let part = notes[start..<min(start + Self.batch, notes.count)]
            do {
                if isWritten { try await records.note(part.map(\.value)) }
            } catch {
                isWritten = false
                onFailure(error)
            }
            let failed = !isWritten
            state.withLock { state in
                for (user, note) in part {
                    state.writing[user] = nil
                    // What came meanwhile is newer.
                    let isForgotten = state.forgetting.contains { $0.user == user }
                    if failed, !isForgotten {
                        state.pending[user] = state.pending[user].map { Self.merge(note, $0) } ?? note
                    }
                }
            }
            tellForgetting()
        }
        return isWritten
    }

    private static func merge(_ older: PresenceNote, _ newer: PresenceNote) -> PresenceNote {
        PresenceNote(
            tenant: newer.tenant, user: newer.user,
            lastSeen: newer.lastSeen.map { max($0, older.lastSeen ?? 0) } ?? older.lastSeen,
            visibility: newer.visibility ?? older.visibility)
    }
}
