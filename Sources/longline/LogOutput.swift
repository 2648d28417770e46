import Foundation
import Logging
import Synchronization

/// Where a service's log goes: standard error, whose reader may stall. Nobody waits for it longer than a moment, least of all an event
/// loop that writes a line.
///
/// ```
///              a line found no room for `patience`
///   writing ─────────────────────────────────────────▶ stalled: what finds no room is dropped, and counted
///      ▲                                                  │
///      └────── there is room: it says how many lines ─────┘
/// ```
/// A file takes everything, and a pipe that nobody reads takes nothing, without an end. Calls may come from any thread.
final class LogOutput: Sendable {
    private struct State {
        /// Lines that were dropped since the last one that was written: above 0, it is stalled.
        var dropped = 0
        /// Whether the last line was cut off.
        var isCut = false
    }

    /// A pipe that has room takes so many bytes at once (PIPE_BUF).
    private static let piece = 4_096

    private let descriptor: Int32
    /// In milliseconds.
    private let patience: Int32
    private let note: @Sendable (_ lines: Int) -> [UInt8]
    private let state = Mutex(State())

    /// - Parameters:
    ///   - descriptor: what is written to.
    ///   - patience: how many milliseconds a line waits for room, where the one before had some.
    ///   - note: the line that says how many were dropped.
    init(
        _ descriptor: Int32 = STDERR_FILENO, patience: Int32 = 100,
        note: @escaping @Sendable (_ lines: Int) -> [UInt8]
    ) {
        (self.descriptor, self.patience, self.note) = (descriptor, patience, note)
    }

    /// Writes a line, with the break at its end, or drops it.
    func write(_ line: [UInt8]) {
        state.withLock { state in
            if state.dropped > 0 {
                guard put(note(state.dropped), &state) else {
                    state.dropped += 1
                    return
                }
                state.dropped = 0
            }
            if !put(line, &state) { state.dropped += 1 }
        }
    }

    /// - Returns: whether all of it was written. A reader that is gone for good counts as one: there is nobody left to tell.
    private func put(_ line: [UInt8], _ state: inout State) -> Bool {
        var rest = (state.isCut ? [UInt8(ascii: "\n")] + line : line)[...]
        while !rest.isEmpty {
            let written: Int?
            do {
                written =
                    hasRoom(within: state.dropped > 0 ? 0 : patience)
                    ? try Output.put(rest.prefix(Self.piece), to: descriptor) : nil
            } catch { return true }
            guard let written else {
                if rest.count < line.count { state.isCut = true }
                return false
            }
            rest = rest.dropFirst(written)
        }
        state.isCut = false
        return true
    }

    /// One whose reader is gone has room too: writing says so.
    private func hasRoom(within milliseconds: Int32) -> Bool {
        var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&ready, 1, milliseconds) != 0
    }
}

extension LogOutput: TextOutputStream {
    func write(_ string: String) { write(Array(string.utf8)) }
}
