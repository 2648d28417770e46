import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Gathers what devices confirm, and writes it to the store once in a while: one write a device, not one an entry.
///
/// What waits here is lost with the process; the entries are then delivered again, marked as such. A place is
/// remembered per device and channel, of so many channels of a device (``channelLimit``): beyond, as if it were lost.
final class CursorWriter: Sendable {
    private struct State {
        var pending: [DeviceKey: [ChannelID: Position]] = [:]
        /// On their way to the store: a device that comes back meanwhile needs them too.
        var writing: [DeviceKey: [ChannelID: Position]] = [:]
        /// Whose devices have places in either of them.
        var byUser: [UserKey: Set<DeviceKey>] = [:]
        /// Who waits until nothing of a user is being written.
        var forgetting: [(user: UserKey, continuation: CheckedContinuation<Void, Never>)] = []

        /// A device may have no places here any more.
        mutating func looseEnd(_ device: DeviceKey) {
            guard pending[device] == nil, writing[device] == nil else { return }
            byUser[device.userKey]?.remove(device)
            if byUser[device.userKey]?.isEmpty == true { byUser[device.userKey] = nil }
        }
    }

    private let cursors: any DeviceCursors
    private let pacer: WritePacer
    private let onFailure: @Sendable (StoreError) -> Void
    private let state = Mutex(State())

    /// Channels of a device whose places wait: more than a device has as a rule.
    static let channelLimit = 4096
    /// Places of a device in one write: others have their turn with the store's one writer in between.
    static let placesPerWrite = 256
    /// Devices written at the same time, so that they share a transaction.
    private static let concurrentWrites = 64
    /// After a write found no room, the next waits for so many delays.
    private static let fullDelays: Int64 = 20

    init(cursors: any DeviceCursors, delay: TimeAmount, onFailure: @escaping @Sendable (StoreError) -> Void) {
        self.cursors = cursors
        pacer = WritePacer(delay: delay, failureDelays: Self.fullDelays)
        self.onFailure = onFailure
    }

    /// Takes note of what a device confirmed, in the order it did.
    func put(_ device: DeviceKey, _ places: [ChannelPosition]) {
        guard !places.isEmpty else { return }
        state.withLock { state in
            merge(places, into: &state.pending[device, default: [:]])
            state.byUser[device.userKey, default: []].insert(device)
        }
        pacer.noteWork()
    }

    /// What waits for a device, or is being written, for a caller who writes it together with something else. It stays here: another
    /// link of the device may ask before that is done, and written twice, a cursor stands where it stood.
    func waiting(for device: DeviceKey) -> [ChannelPosition] {
        // Each acknowledgement waits for this lock: nothing is put together under it.
        let (pending, writing) = state.withLock { ($0.pending[device] ?? [:], $0.writing[device] ?? [:]) }
        // What waits was confirmed later than what is being written.
        let places = pending.merging(writing) { newer, _ in newer }
        return places.map { ChannelPosition(channel: $0.key, position: $0.value) }
    }

    /// Drops what waits for a user's devices, and returns when nothing of theirs is being written.
    func forget(_ user: UserKey) async {
        await withCheckedContinuation { continuation in
            state.withLock { state in
                for device in state.byUser[user] ?? [] {
                    state.pending[device] = nil
                    state.looseEnd(device)
                }
                state.forgetting.append((user, continuation))
            }
            tellForgetting()
        }
    }

    private func tellForgetting() {
        let done = state.withLock { state in
            let writing = Set(state.writing.keys.map(\.userKey))
            let done = state.forgetting.filter { !writing.contains($0.user) }
            state.forgetting.removeAll { !writing.contains($0.user) }
            return done
        }
        for waiter in done { waiter.continuation.resume() }
    }

    /// Whether one of a user's devices confirmed a channel's entries up to a place, as far as it waits here or is being written.
    func covers(_ place: ChannelPosition, of user: UserKey) -> Bool {
        state.withLock { state in
            (state.byUser[user] ?? []).contains { device in
                [state.pending[device], state.writing[device]].contains { places in
                    CursorRecord(version: 0, cursors: places ?? [:]).covers(place)
                }
            }
        }
    }

    /// Writes what is put in, until ``stop()``; then writes the rest and returns.
    func run() async { await pacer.run { await self.flush() } }

    /// Lets ``run()`` end.
    func stop() { pacer.stop() }

    /// Writes what waits now. What the store has no room for waits on.
    /// - Returns: whether there was room for all.
    @discardableResult
    func flush() async -> Bool {
        let batch = state.withLock { state in
            assert(state.writing.isEmpty, "flush() runs twice")
            state.writing = state.pending
            state.pending = [:]
            return state.writing
        }
        return await withTaskGroup(of: Bool.self) { group in
            var running = 0
            var hadRoom = true
            for (device, places) in batch {
                if running >= Self.concurrentWrites, let one = await group.next() {
                    hadRoom = hadRoom && one
                    running -= 1
                }
                running += 1
                group.addTask {
                    let hadRoom = await self.write(device, places)
                    self.state.withLock { $0.looseEnd(device) }
                    return hadRoom
                }
            }
            for await one in group { hadRoom = hadRoom && one }
            return hadRoom
        }
    }

    private func write(_ device: DeviceKey, _ places: [ChannelID: Position]) async -> Bool {
        defer { if state.withLock({ !$0.forgetting.isEmpty }) { tellForgetting() } }
        var rest = places.map { ChannelPosition(channel: $0.key, position: $0.value) }[...]
        do {
            while !rest.isEmpty {
                let some = rest.prefix(Self.placesPerWrite)
                try await cursors.move(device, to: Array(some))
                rest = rest.dropFirst(some.count)
            }
            state.withLock { _ = $0.writing.removeValue(forKey: device) }
            return true
        } catch {
            onFailure(error)
            let mayLater = error.isPassing
            let left = rest
            state.withLock { state in
                state.writing[device] = nil
                let isForgotten = state.forgetting.contains { $0.user == device.userKey }
                guard mayLater, !pacer.isStopped, !isForgotten else { return }
                // What was confirmed meanwhile is newer.
                restore(left, into: &state.pending[device, default: [:]])
            }
            return !mayLater
        }
    }

    private func merge(_ places: [ChannelPosition], into pending: inout [ChannelID: Position]) {
        for place in places {
            // Another epoch replaces the one before it: the session only confirms in the channel's current one.
            if let old = pending[place.channel], old.epoch == place.position.epoch,
                old.offset >= place.position.offset
            {
                continue
            }
            guard pending.count < Self.channelLimit || pending[place.channel] != nil else { continue }
            pending[place.channel] = place.position
        }
    }

    private func restore(_ places: ArraySlice<ChannelPosition>, into pending: inout [ChannelID: Position]) {
        for place in places where pending[place.channel] == nil && pending.count < Self.channelLimit {
            pending[place.channel] = place.position
        }
    }
}
