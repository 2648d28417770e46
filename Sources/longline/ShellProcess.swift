import CProcessSpawn
import Foundation
import Synchronization

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Tells a thread that waits in poll(2) to stop.
final class StopPipe: Sendable {
    /// Can be read as soon as it is to stop.
    let descriptor: Int32
    private let other: Mutex<Int32?>

    /// - Throws: ``TokenCommand/Failure/notStarted(_:)``.
    init() throws {
        let ends = try ShellProcess.makePipe()
        descriptor = ends.read
        other = Mutex(ends.write)
    }

    deinit {
        stop()
        close(descriptor)
    }

    func stop() {
        if let end = other.withLock({ $0.take() }) { close(end) }
    }
}

/// A command of the shell that runs, and whose output is read.
///
/// Foundation's `Process` does not do: it has every child in the background of the terminal, where nobody can be asked anything, and with
/// the signals that this process ignores or has blocked.
final class ShellProcess: Sendable {
    /// How long one that is asked to end may take, before it is made to.
    private static let grace = Duration.seconds(1)

    private let pid: pid_t
    private let descriptor: Int32
    /// How the terminal was that it may ask a person at. nil: there is none, and it leads a process group; else it stays in ours, and
    /// hears Ctrl-C.
    private let terminal: TerminalSettings?

    private struct State {
        /// A number is somebody else's once it was waited for.
        var isReaped = false
        /// Where it is in our process group: what it started, from the first signal on.
        var descendants = ProcessDescendants()
    }

    private let state = Mutex(State())

    private init(pid: pid_t, descriptor: Int32, terminal: TerminalSettings?) {
        self.pid = pid
        self.descriptor = descriptor
        self.terminal = terminal
    }

    deinit { close(descriptor) }

    // MARK: Its start

    /// This process reads the terminal itself: what a command asked for there would come in as lines of ours.
    static let isTerminalTaken = Atomic(false)

    /// - Throws: ``TokenCommand/Failure/notStarted(_:)``.
    static func start(_ command: String) throws -> ShellProcess {
        let ends = try makePipe()
        defer { close(ends.write) }
        let terminal = isTerminalTaken.load(ordering: .relaxed) ? nil : TerminalSettings()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends.write, STDOUT_FILENO)
        // Ours may be the lines that a chat sends, which ssh for one would read.
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        // Sockets and files of ours are not its affair, whoever opened them. Where that can't be had, most close by themselves.
        _ = llp_close_from(&actions, STDERR_FILENO + 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // This process ignores SIGPIPE, and its threads may have signals blocked: neither is meant for others.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        let group = terminal == nil ? POSIX_SPAWN_SETPGROUP : 0
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | group))
        let variables = ProcessInfo.processInfo.environment.map { "\($0.key)=\($0.value)" }
        var pid: pid_t = 0
        let code = withTexts(["/bin/sh", "-c", command]) { arguments in
            withTexts(variables) { posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments, $0) }
        }
        guard code == 0 else {
            close(ends.read)
            throw TokenCommand.Failure.notStarted(String(cString: strerror(code)))
        }
        let process = ShellProcess(pid: pid, descriptor: ends.read, terminal: terminal)
        _ = endsWithThisProcess
        running.withLock { $0[pid] = process }
        return process
    }

    /// Texts as exec(3) takes them.
    private static func withTexts<Answer>(
        _ texts: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Answer
    ) -> Answer {
        let copies = texts.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return body(copies + [nil])
    }

    /// A pipe that no other process gets.
    static func makePipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        let code = llp_pipe(&ends)
        guard code == 0 else { throw TokenCommand.Failure.notStarted(String(cString: strerror(code))) }
        return (ends[0], ends[1])
    }

    // MARK: What it prints

    /// Waits for its end, on this thread. When it is to stop, or prints too much, it is ended before this throws.
    /// - Parameter limit: in bytes.
    /// - Throws: ``TokenCommand/Failure``, or `CancellationError`.
    func output(limit: Int, until stop: StopPipe) throws -> String {
        let printed: [UInt8]
        do {
            printed = try readToEnd(limit: limit, until: stop)
            // One that prints no more may go on all the same.
            var pause: Int32 = 1
            while !hasEnded {
                try wait(milliseconds: pause, until: stop)
                pause = min(pause * 2, 100)
            }
        } catch {
            end()
            _ = reap()
            throw error
        }
        let status = reap()
        guard status == 0 else { throw TokenCommand.Failure.status(status) }
        return String(decoding: printed, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private func readToEnd(limit: Int, until stop: StopPipe) throws -> [UInt8] {
        var printed: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4_096)
        while true {
            try wait(for: descriptor, milliseconds: -1, until: stop)
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return printed }
            guard printed.count + count <= limit else { throw TokenCommand.Failure.tooLong(limit: limit) }
            printed += buffer[..<count]
        }
    }

    /// Waits until a descriptor can be read or the time is over.
    private func wait(for descriptor: Int32 = -1, milliseconds: Int32, until stop: StopPipe) throws {
        // A negative descriptor is left out.
        var waited = [
            pollfd(fd: stop.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
        ]
        while poll(&waited, nfds_t(waited.count), milliseconds) < 0 && errno == EINTR {}
        if waited[0].revents != 0 { throw CancellationError() }
    }

    // MARK: Its end

    /// Those that run, to be ended with this process.
    private static let running = Mutex<[pid_t: ShellProcess]>([:])
    private static let endsWithThisProcess: Int32 = atexit {
        for process in ShellProcess.running.withLock({ Array($0.values) }) { process.end() }
    }

    /// Whether it has ended, waited for or not.
    private var hasEnded: Bool {
        state.withLock { state in
            guard !state.isReaped else { return true }
            var change = siginfo_t()
            let code = waitid(P_PID, id_t(pid), &change, WEXITED | WNOHANG | WNOWAIT)
            return code != 0 || change.si_signo != 0
        }
    }

    /// Whether what it started has ended as well, as far as that is known.
    private var isAllOver: Bool { hasEnded && state.withLock { $0.descendants.haveEnded } }

    /// Asks it and what it started to end, and a moment later sees to it.
    private func end() {
        signal(SIGTERM)
        let last = ContinuousClock.now + Self.grace
        while !isAllOver, ContinuousClock.now < last { Thread.sleep(forTimeInterval: 0.01) }
        signal(SIGKILL)
        terminal?.restore()
    }

    private func signal(_ number: Int32) {
        state.withLock { state in
            if terminal == nil {
                if !state.isReaped { kill(-pid, number) }
                return
            }
            if !state.isReaped {
                // Before it hears of it, and while it starts nothing more: what it started would be found no more.
                halt()
                defer { kill(pid, SIGCONT) }
                state.descendants.look(below: pid)
                kill(pid, number)
            }
            state.descendants.lookAgain()
            state.descendants.signal(number)
        }
    }

    /// Halts it until `SIGCONT`, as far as it can be halted soon: one that waits for a child's exec(3) or for a disk is not.
    private func halt() {
        guard kill(pid, SIGSTOP) == 0 else { return }
        for _ in 0..<100 {
            var change = siginfo_t()
            let code = waitid(P_PID, id_t(pid), &change, WSTOPPED | WEXITED | WNOHANG | WNOWAIT)
            guard code == 0, change.si_signo == 0 else { return }
            Thread.sleep(forTimeInterval: 0.001)
        }
    }

    /// Waits for its end.
    /// - Returns: its status, as a shell has it.
    private func reap() -> Int32 {
        state.withLock { state in
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
            state.isReaped = true
            Self.running.withLock { $0[pid] = nil }
            let signal = status & 0x7f
            return signal == 0 ? (status >> 8) & 0xff : 128 + signal
        }
    }
}
