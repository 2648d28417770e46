import LonglineClient
import LonglineWire
import Synchronization

/// One device of the demonstration: a client, and everything it has been given so far.
final class DemoDevice: Sendable {
    /// A message as it arrived.
    struct Arrival: Sendable {
        let channel: ChannelID
        let position: Position
        let sender: String
        let text: String
        let at: ContinuousClock.Instant
    }

    /// Something was awaited in vain.
    struct TimedOut: Error, CustomStringConvertible {
        let description: String
    }

    private struct State {
        var arrivals: [Arrival] = []
        var states: [ConnectionState] = []
        var waiters: [UInt64: Waiter] = [:]
        var nextWaiter: UInt64 = 0
    }

    private struct Waiter {
        let isMet: @Sendable (Snapshot) -> Bool
        let continuation: CheckedContinuation<Bool, Never>
    }

    /// What a condition is judged by.
    struct Snapshot: Sendable {
        let arrivals: [Arrival]
        let connected: [ConnectionInfo]
        let isConnected: Bool

        func texts(in channel: ChannelID? = nil) -> [String] {
            arrivals.filter { $0.channel == channel ?? $0.channel }.map(\.text)
        }
    }

    let name: String
    let client: LonglineClient
    private let state = Mutex(State())
    private let reader = Mutex<[Task<Void, Never>]>([])

    init(name: String, client: LonglineClient) {
        self.name = name
        self.client = client
        let messages = Task { [weak self] in
            for await message in client.messages {
                guard message.kind == .message else { continue }
                self?.arrived(
                    Arrival(
                        channel: message.channel, position: message.position, sender: "\(message.sender)",
                        text: message.text, at: .now))
            }
        }
        let states = Task { [weak self] in
            for await state in client.states { self?.changed(to: state) }
        }
        reader.withLock { $0 = [messages, states] }
    }

    var snapshot: Snapshot { state.withLock { Self.snapshot($0) } }

    /// Waits until what has arrived meets a condition.
    func wait(
        for what: String, atMost limit: Duration = .seconds(20), until isMet: @escaping @Sendable (Snapshot) -> Bool
    ) async throws {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        let timer = Task {
            try await Task.sleep(for: limit)
            state.withLock { $0.waiters.removeValue(forKey: id) }?.continuation.resume(returning: false)
        }
        defer { timer.cancel() }
        let met = await withCheckedContinuation { continuation in
            let immediately = state.withLock { state in
                if isMet(Self.snapshot(state)) { return true }
                state.waiters[id] = Waiter(isMet: isMet, continuation: continuation)
                return false
            }
            if immediately { continuation.resume(returning: true) }
        }
        guard met else { throw TimedOut(description: "\(name) waited \(limit) in vain for \(what)") }
    }

    /// The device is off for good.
    func end() async {
        await client.disconnect()
        reader.withLock { tasks in
            for task in tasks { task.cancel() }
        }
    }

    private func arrived(_ arrival: Arrival) {
        update { $0.arrivals.append(arrival) }
    }

    private func changed(to connection: ConnectionState) {
        update { $0.states.append(connection) }
    }

    private func update(_ change: (inout State) -> Void) {
        let met = state.withLock { state in
            change(&state)
            let snapshot = Self.snapshot(state)
            let ids = state.waiters.filter { $0.value.isMet(snapshot) }.keys
            return ids.compactMap { state.waiters.removeValue(forKey: $0)?.continuation }
        }
        for continuation in met { continuation.resume(returning: true) }
    }

    private static func snapshot(_ state: State) -> Snapshot {
        let connected = state.states.compactMap { state in
            if case .connected(let info) = state { info } else { nil }
        }
        return Snapshot(
            arrivals: state.arrivals, connected: connected, isConnected: state.states.last?.isConnected ?? false)
    }
}
