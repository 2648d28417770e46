import GRDB
import HTTP3
import Logging
import LonglineServer
import LonglineStore

extension Problem {
    /// What a failure inside is to the caller.
    init(answering error: any Error) {
        switch error {
        case let problem as Problem: self = problem
        case is DeadlineExceeded: self.init(.unavailable, "it took too long", retryAfter: 1, cause: error)
        case is CancellationError: self.init(.unavailable, "it was given up", retryAfter: 1, cause: error)
        case _ where Self.isStorageFull(error): self = .storageFull(cause: error)
        case let failure as ServerError where (failure.cause as? StoreError)?.code == .overloaded:
            self.init(.overloaded, retryAfter: 1, cause: error)
        case let failure as ServerError where failure.code == .notRunning:
            self = .notRunning(cause: error)
        default: self.init(.internalError, cause: error)
        }
    }

    /// What the store says of something that only reads it.
    init(reading error: StoreError) {
        self.init(error.isPassing ? .overloaded : .unavailable, retryAfter: 1, cause: error)
    }

    /// What the store says of a channel that is read.
    init(readingChannel error: StoreError) {
        if error.code == .unknownChannel {
            self.init(.notFound, "there is no such channel")
        } else {
            self.init(reading: error)
        }
    }

    /// The server starts, or was stopped.
    static func notRunning(cause: (any Error)? = nil) -> Problem {
        Problem(.unavailable, "the server does not run", retryAfter: 1, cause: cause)
    }

    /// What is asked for would stay behind of a user of whom nothing is to be left.
    static let beingErased = Problem(.unavailable, "the user's account is being erased", retryAfter: 5)

    /// Of the log's line about it: an error for what went wrong inside, a warning for what is refused on purpose for now, and for a
    /// mistake of the caller's no more than info, whatever its status says.
    var level: Logger.Level {
        switch kind {
        case .internalError: isCausedByCaller ? .info : .error
        case .storageFull: .error
        case .overloaded, .noAccessPoint, .unavailable: cause.map(Self.isDeliberate) ?? true ? .warning : .error
        default: .info
        }
    }

    /// Whether a failure inside is a refusal for now: the server does not run, or the store has too much at once.
    private static func isDeliberate(_ cause: any Error) -> Bool {
        if let failure = cause as? ServerError, failure.code == .notRunning { return true }
        return (origin(of: cause) as? StoreError)?.code == .overloaded
    }

    /// Whether there is no answer because the caller, or the connection to it, takes none: an answer over HTTP/3 may be larger than
    /// the caller says it takes.
    var isCausedByCaller: Bool { kind == .internalError && (cause as? HTTP3Error)?.isCausedByPeer == true }

    /// Whether it came of the caller's going away, however deep inside that was noticed.
    var isGivenUp: Bool { cause.map { Self.origin(of: $0) is CancellationError } ?? false }

    /// There is no room on the disk: nothing was done, and the same may succeed once somebody made room.
    static func storageFull(retryAfter: Int = fullDiskRetry, cause: (any Error)? = nil) -> Problem {
        Problem(.storageFull, retryAfter: max(1, retryAfter), cause: cause)
    }

    /// In seconds. Somebody has to make room: less would be asking for nothing.
    private static let fullDiskRetry = 10

    private static func isStorageFull(_ error: any Error) -> Bool {
        switch origin(of: error) {
        case let error as DatabaseError: error.isStorageFull
        case let error as StoreError: error.code == .storageFull
        default: false
        }
    }

    /// What a failure inside came of.
    private static func origin(of error: any Error) -> any Error {
        let cause: (any Error)? =
            switch error {
            case let error as ServerError: error.cause
            case let error as ControlError: error.cause
            default: nil
            }
        return cause.map(origin) ?? error
    }
}

extension LonglineServer {
    /// Asked before anything is written down that only the server brings to its end.
    /// - Throws: ``Problem`` while it starts, and from its stop on.
    func requireRunning() throws(Problem) {
        guard isRunning else { throw Problem.notRunning() }
    }
}

extension DatabaseError {
    /// Whether the disk has no room for what was to be written.
    var isStorageFull: Bool { resultCode == .SQLITE_FULL || extendedResultCode == .SQLITE_IOERR_SHMSIZE }
}
