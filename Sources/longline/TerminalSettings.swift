// Swift counts the C library's sets of signals to the module that includes <spawn.h>.
import CProcessSpawn

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// How the terminal that this process is in the foreground of is set, to be set so again: a prompt that is ended while somebody types a
/// password leaves it without an echo.
struct TerminalSettings: Sendable {
    private let settings: termios

    /// As it is now.
    /// - Returns: nil where there is no terminal, or others have it.
    init?() {
        var settings = termios()
        guard Self.withForeground({ tcgetattr($0, &settings) }) == 0 else { return nil }
        self.settings = settings
    }

    /// Sets it as it was, unless others have it now.
    func restore() {
        // Who comes into the background meanwhile would be stopped for it.
        var (stop, before) = (sigset_t(), sigset_t())
        sigemptyset(&stop)
        sigaddset(&stop, SIGTTOU)
        pthread_sigmask(SIG_BLOCK, &stop, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var settings = settings
        _ = Self.withForeground { tcsetattr($0, TCSANOW, &settings) }
    }

    /// - Returns: what the body does; nil where this process may not ask the person at a terminal.
    private static func withForeground(_ body: (Int32) -> Int32) -> Int32? {
        let terminal = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC)
        guard terminal >= 0 else { return nil }
        defer { close(terminal) }
        return tcgetpgrp(terminal) == getpgrp() ? body(terminal) : nil
    }
}
