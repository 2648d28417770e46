import ArgumentParser
import LonglineClient
import LonglineWire
import Synchronization

/// How long a command waits for the service that asks it something and ends.
struct PatienceOptions: ParsableArguments {
    @Option(name: .long, help: "Give up after so many seconds.")
    var timeout: Double = 30

    func validate() throws {
        guard timeout > 0, timeout < 1e9 else { throw ValidationError("Times are seconds, more than 0.") }
    }

    /// Connects, asks, and says goodbye, whatever came of it.
    /// - Throws: what asking throws; ``ClientError/Code/timedOut`` with the last trouble when the time is over.
    func ask<Answer: Sendable>(
        _ client: LonglineClient, _ body: @escaping @Sendable (LonglineClient) async throws -> Answer
    ) async throws -> Answer {
        try await OneShot.run(client, within: timeout) { client in
            try await client.connect()
            return try await body(client)
        }
    }
}

/// What a client does once.
enum OneShot {
    /// Runs it, and disconnects.
    /// - Throws: what it throws; ``ClientError/Code/timedOut`` with the last trouble when the time is over.
    static func run<Answer: Sendable>(
        _ client: LonglineClient, within seconds: Double,
        _ body: @escaping @Sendable (LonglineClient) async throws -> Answer
    ) async throws -> Answer {
        let trouble = LastTrouble(client)
        defer { trouble.stop() }
        let answer: Result<Answer, any Error>
        do {
            answer = .success(
                try await withThrowingTaskGroup(of: Answer?.self) { group in
                    group.addTask { try await body(client) }
                    group.addTask {
                        try await Task.sleep(for: .seconds(seconds))
                        return nil
                    }
                    defer { group.cancelAll() }
                    if let answer = try await group.next() ?? nil { return answer }
                    throw ClientError(
                        .timedOut, message: await trouble.explain("no answer in \(seconds) s"),
                        advice: client.state.isConnected ? "" : "find out whether the service can be reached")
                })
        } catch {
            answer = .failure(error)
        }
        await client.disconnect()
        return try answer.get()
    }
}

/// Remembers why the last attempt to connect failed, so that a command that gives up can say it.
final class LastTrouble: Sendable {
    private struct Seen {
        /// Why the last attempt failed; nil once there was a connection.
        var reason: String?
        /// What the client was about.
        var doing: String?
    }

    private let client: LonglineClient
    private let seen = Mutex(Seen())
    private let watcher = Mutex<Task<Void, Never>?>(nil)

    init(_ client: LonglineClient) {
        self.client = client
        let states = client.states
        let task = Task { [weak self] in
            for await state in states { self?.note(state) }
        }
        watcher.withLock { $0 = task }
    }

    private func note(_ state: ConnectionState) {
        seen.withLock { seen in
            switch state {
            case .waiting(_, let cause): seen = Seen(reason: "\(cause)")
            case .locating, .connecting: seen.doing = Terminal.describe(state)
            case .connected, .migrating: seen = Seen()
            case .disconnected, .standby, .stopped, .upgradeRequired: break
            }
        }
    }

    /// What happened, with why, as far as that is known.
    func explain(_ text: String) async -> String {
        let seen = seen.withLock { $0 }
        var text = text
        if let reason = seen.reason {
            text += "; \(reason)"
        } else if let doing = seen.doing {
            text += ", still \(doing)"
        }
        let statistics = await client.statistics
        // It is sent again by itself until the time is over: that it was refused is all there is to know.
        if let code = statistics.lastPutOff {
            text += "; the service refused it so far: \(code.explanation) (code \(code.rawValue))"
        }
        // Where there is another way to go, no state tells that the control layer failed.
        if statistics.failedAccessQuestions > 0 {
            text += "; the control layer gave no answer of use (--log-level warning says why)"
        }
        return text
    }

    func stop() { watcher.withLock { $0?.cancel() } }
}
