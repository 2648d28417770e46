import Foundation

/// A shell command that prints a token. One process of it runs at a time, and none goes on when nobody waits for it any more.
actor TokenCommand {
    /// Why there is no token.
    enum Failure: Error, Equatable, CustomStringConvertible {
        /// The system's word for why it could not be started.
        case notStarted(String)
        /// It ended with this status; as in a shell, 128 and the number of the signal that ended it.
        case status(Int32)
        /// It printed more than this many bytes, which no token has.
        case tooLong(limit: Int)

        var description: String {
            switch self {
            case .notStarted(let reason): "the token command could not be started: \(reason)"
            case .status(let status): "the token command ended with status \(status)"
            case .tooLong(let limit): "the token command printed more than \(limit) bytes, which is no token"
            }
        }
    }

    /// More than any token has, in bytes.
    private static let longest = 64 * 1024

    private let command: String
    private var latest: Task<String, any Error>?

    init(_ command: String) { self.command = command }

    /// Runs it, after those that run already.
    /// - Throws: ``Failure``; `CancellationError` when the task was cancelled, after the command's end.
    func token() async throws -> String {
        let command = command
        let before = latest
        let run = Task {
            _ = await before?.result
            try Task.checkCancellation()
            return try await Self.output(of: command)
        }
        latest = run
        return try await withTaskCancellationHandler {
            try await run.value
        } onCancel: {
            run.cancel()
        }
    }

    /// On a thread of its own, since it may take its time.
    private static func output(of command: String) async throws -> String {
        let stop = try StopPipe()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                Thread.detachNewThread {
                    continuation.resume(
                        with: Result {
                            try ShellProcess.start(command).output(limit: Self.longest, until: stop)
                        })
                }
            }
        } onCancel: {
            stop.stop()
        }
    }
}
