import LonglineWire
import Synchronization

/// How long to wait between two looks at a file: as its owner set it, and longer while nothing happens.
struct LookInterval {
    /// How many times its interval somebody waits at most for whom nobody waits.
    static let longest = 8
    /// So many looks without news are made before each step.
    private static let looks = 16

    let interval: Duration
    private var quiet = 0

    init(_ interval: Duration) { self.interval = interval }

    /// - Parameter longest: how many times the interval it grows to, step by step.
    mutating func next(isNews: Bool, longest: Int = LookInterval.longest) -> Duration {
        quiet = isNews ? 0 : min(quiet + 1, (longest - 1) * Self.looks)
        return interval * (1 + quiet / Self.looks)
    }
}

extension SessionMode {
    /// How many times its interval the owner of a shared outbox waits at most between two looks while it is connected. Each look wakes
    /// the processor, and what is put in while the user is away has time.
    var longestLook: Int {
        switch self {
        case .foreground: 1
        case .background: LookInterval.longest
        case .lowPower: 20
        }
    }
}

/// What the owner of a shared outbox waits for between two looks: seldom while its user is away, and not at all when the user comes.
final class OwnerLooks: Sendable {
    private struct State {
        /// What the app said last.
        var mode = SessionMode.foreground
        var wait: Task<Void, any Error>?
        /// The next look waits for nothing.
        var isDue = false
    }

    private let state = Mutex(State())

    var mode: SessionMode { state.withLock { $0.mode } }

    func setMode(_ mode: SessionMode) {
        let wait = state.withLock { state -> Task<Void, any Error>? in
            state.mode = mode
            guard mode == .foreground else { return nil }
            state.isDue = true
            return state.wait
        }
        wait?.cancel()
    }

    /// Waits for so long, or until the user comes.
    func wait(for time: Duration) async {
        let wait = state.withLock { state -> Task<Void, any Error>? in
            defer { state.isDue = false }
            guard !state.isDue else { return nil }
            let wait = Task { try await Task.sleep(for: time) }
            state.wait = wait
            return wait
        }
        guard let wait else { return }
        await withTaskCancellationHandler {
            _ = await wait.result
        } onCancel: {
            wait.cancel()
        }
    }
}
