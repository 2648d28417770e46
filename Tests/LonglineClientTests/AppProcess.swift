import Foundation
import LonglineTestKit
import Synchronization
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// A `ClientProcess` that a test runs, listens to and kills.
final class AppProcess: Sendable {
    private struct State {
        var lines: [String] = []
        var isOver = false
        var waiters: [Int: Waiter] = [:]
        var lastWaiter = 0
    }

    private struct Waiter {
        let matches: @Sendable ([String]) -> Bool
        let continuation: CheckedContinuation<Bool, Never>
    }

    let pid: pid_t
    private let state = Mutex(State())
    private let input: FileHandle

    init(_ arguments: [String]) throws {
        let process = Process()
        process.executableURL = try HelperProgram.url("ClientProcess")
        process.arguments = arguments
        let (output, input) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardInput = input
        self.input = input.fileHandleForWriting
        try process.run()
        pid = process.processIdentifier
        let reader = output.fileHandleForReading
        Thread.detachNewThread { [weak self] in
            var rest = Data()
            var buffer = [UInt8](repeating: 0, count: 4_096)
            while true {
                let count = read(reader.fileDescriptor, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { break }
                rest += buffer[..<count]
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    self?.note(String(decoding: rest[rest.startIndex..<end], as: UTF8.self))
                    rest = Data(rest[(end + 1)...])
                }
            }
            process.waitUntilExit()
            self?.finish()
        }
    }

    deinit { kill(pid, SIGKILL) }

    var lines: [String] { state.withLock { $0.lines } }

    /// How many lines begin so.
    func count(_ prefix: String) -> Int { lines.count { $0.hasPrefix(prefix) } }

    /// Waits until its lines are so; false when it ended before, or the test's time is over.
    func wait(_ matches: @escaping @Sendable ([String]) -> Bool) async -> Bool {
        let id = state.withLock { state in
            state.lastWaiter += 1
            return state.lastWaiter
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer = state.withLock { state -> Bool? in
                    if matches(state.lines) { return true }
                    if state.isOver || Task.isCancelled { return false }
                    state.waiters[id] = Waiter(matches: matches, continuation: continuation)
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            state.withLock { $0.waiters.removeValue(forKey: id) }?.continuation.resume(returning: false)
        }
    }

    func wait(for line: String) async -> Bool { await wait { $0.contains(line) } }
    func wait(_ count: Int, _ prefix: String) async -> Bool {
        await wait { lines in lines.count { $0.hasPrefix(prefix) } >= count }
    }

    func signal(_ signal: Int32) { kill(pid, signal) }

    /// Its input ends: it finishes what it has, and ends.
    func finishInput() { try? input.close() }

    /// Waits for its end.
    func ended() async { _ = await wait { _ in false } }

    private func note(_ line: String) {
        let ready = state.withLock { state in
            state.lines.append(line)
            let lines = state.lines
            let ready = state.waiters.filter { $0.value.matches(lines) }
            for id in ready.keys { state.waiters[id] = nil }
            return ready
        }
        for waiter in ready.values { waiter.continuation.resume(returning: true) }
    }

    private func finish() {
        let waiters = state.withLock { state in
            state.isOver = true
            defer { state.waiters = [:] }
            return state.waiters
        }
        for waiter in waiters.values { waiter.continuation.resume(returning: false) }
    }
}
