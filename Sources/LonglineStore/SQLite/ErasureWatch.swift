import Synchronization

/// Whether any account is being erased, as far as that is known without a look at the database. As a rule none is, and a server asks
/// with each token and each publish of an app's server.
///
/// A store is written by the one process that has it open: what a look found holds until an erasure is resolved. ``changes()`` is called
/// before that is written, so that a look from before says nothing about it, and behind it, so that one from meanwhile doesn't either.
final class ErasureWatch: Sendable {
    /// A look at the database that has begun.
    struct Look: Sendable {
        fileprivate let changes: Int
    }

    private let state = Mutex((changes: 0, noneSince: Int?.none))

    /// Whether none is under way for certain.
    var isQuiet: Bool { state.withLock { $0.noneSince == $0.changes } }

    /// Comes before the database is read.
    func begin() -> Look { Look(changes: state.withLock { $0.changes }) }

    /// The database had none.
    func foundNone(_ look: Look) {
        state.withLock { state in
            if look.changes == state.changes { state.noneSince = look.changes }
        }
    }

    /// One is about to be resolved, or was.
    func changes() { state.withLock { $0.changes += 1 } }
}
