import DequeModule
import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Publishes of one event loop on their way into the store.
///
/// ```
///   sessions ─▶ waiting ─▶ (batches) under way in the store ─▶ answers and wakes
/// ```
/// What a tick of the loop brings is a batch. Several are under way, so that the store has the next transaction's writes
/// when one is on disk, and puts all that came meanwhile into it. They are handed over in order, which the store keeps, and
/// answered in order. Loops' batches share transactions inside the store. Bounded by
/// ``ServerLimits/appendsPerSession`` and ``ServerLimits/appendBytesPerLoop``: beyond, a publish is refused, never queued.
struct AppendQueue {
    struct Item {
        let request: AppendRequest
        /// The session that published; nil: the app's own server did, and ``reply`` is for it.
        var host: SessionHost?
        var reply: EventLoopPromise<AppendOutcome>?
    }

    fileprivate struct Batch {
        let items: [Item]
        /// What the store said, until the batches before it are answered.
        var outcomes: [AppendOutcome]?
    }

    fileprivate(set) var waiting: Deque<Item> = []
    fileprivate var underWay: Deque<Batch> = []
    /// The number of the first batch under way.
    fileprivate var firstUnderWay: UInt64 = 0
    fileprivate(set) var bytes = 0
    fileprivate var flushScheduled = false
    /// Publishes that were answered, and who waits until so many are.
    fileprivate var answered: UInt64 = 0
    private var waiters: [(answered: UInt64, promise: EventLoopPromise<Void>)] = []

    var isEmpty: Bool { waiting.isEmpty && underWay.isEmpty }
    /// Who waits for publishes to be answered, for tests.
    var waiterCount: Int { waiters.count }

    /// Batches handed to the store at a time: about the ticks that pass during a transaction.
    fileprivate static let maximumUnderWay = 16

    /// Succeeds once everything is answered that is queued now.
    mutating func whenAnswered(_ promise: EventLoopPromise<Void>) {
        let open = waiting.count + underWay.reduce(0) { $0 + $1.items.count }
        waiters.append((answered + UInt64(open), promise))
        tellWaiters()
    }

    fileprivate mutating func tellWaiters() {
        while let first = waiters.first, first.answered <= answered { waiters.removeFirst().promise.succeed() }
    }
}

extension ServerLoop {
    /// Succeeds once the store has answered every publish that the sessions handed over up to now.
    func appendsAnswered() -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        appends.whenAnswered(promise)
        return promise.futureResult
    }

    /// Queues a publish.
    /// - Returns: false when there is no room for it now.
    func append(_ request: AppendRequest, from host: SessionHost) -> Bool {
        guard host.appendsWaiting < core.limits.appendsPerSession,
            enqueue(AppendQueue.Item(request: request, host: host))
        else { return false }
        host.appendsWaiting += 1
        return true
    }

    /// Queues a publish of the app's own server, which goes the way of every other.
    /// - Parameter reply: what became of it; never completed when there is no room.
    /// - Returns: false when there is no room for it now.
    func append(_ request: AppendRequest, reply: EventLoopPromise<AppendOutcome>) -> Bool {
        enqueue(AppendQueue.Item(request: request, reply: reply))
    }

    private func enqueue(_ item: AppendQueue.Item) -> Bool {
        let size = item.request.publish.payload.readableBytes
        guard appends.bytes + size <= core.limits.appendBytesPerLoop else { return false }
        appends.bytes += size
        appends.waiting.append(item)
        if !appends.flushScheduled && appends.underWay.count < maximumBatches {
            // At the end of the tick, so that everything the tick's packets bring shares one batch.
            appends.flushScheduled = true
            reference.execute { $0.flushAppends() }
        }
        return true
    }

    private var maximumBatches: Int { executor == nil ? 1 : AppendQueue.maximumUnderWay }

    private func flushAppends() {
        appends.flushScheduled = false
        while appends.underWay.count < maximumBatches, !appends.waiting.isEmpty {
            let count = min(appends.waiting.count, core.limits.appendBatch)
            let items = Array(appends.waiting.prefix(count))
            appends.waiting.removeFirst(count)
            let number = appends.firstUnderWay + UInt64(appends.underWay.count)
            appends.underWay.append(AppendQueue.Batch(items: items))
            let batch = items.map(\.request)
            let (store, reference) = (core.store, self.reference)
            // The loop's own tasks start in order, so that the store takes the batches in order; elsewhere there is one.
            LoopExecutor.start(on: executor) {
                let outcomes = await store.append(batch)
                reference.run { $0.appended(outcomes, batch: number) }
            }
        }
    }

    private func appended(_ outcomes: [AppendOutcome], batch number: UInt64) {
        let index = Int(number - appends.firstUnderWay)
        precondition(appends.underWay[index].outcomes == nil, "a batch is answered once")
        precondition(
            appends.underWay[index].items.count == outcomes.count, "the store answers every publish of a batch")
        appends.underWay[index].outcomes = outcomes
        var heads: [ChannelKey: Position] = [:]
        while let batch = appends.underWay.first, let outcomes = batch.outcomes {
            appends.underWay.removeFirst()
            appends.firstUnderWay += 1
            answer(batch.items, outcomes, heads: &heads)
        }
        publishWakes(heads)
        drainDirty()
        appends.tellWaiters()
        flushAppends()
        checkIdle()
    }

    private func answer(
        _ items: [AppendQueue.Item], _ outcomes: [AppendOutcome], heads: inout [ChannelKey: Position]
    ) {
        let now = eventLoop.now
        for (item, outcome) in zip(items, outcomes) {
            appends.bytes -= item.request.publish.payload.readableBytes
            let tenant = item.request.device.tenant
            if case .entered(let published, _, let expiry, let copy) = outcome {
                // Offsets of one channel grow along the batches: the last one is the head.
                heads[ChannelKey(tenant: tenant, channel: item.request.channel)] = published.position
                if let copy { heads[ChannelKey(tenant: tenant, channel: copy.channel)] = copy.position }
                core.webhooks?.entered(item.request, published, expiry: expiry, copy: copy)
            }
            count(outcome)
            item.host?.appended(item.request, outcome, now: now)
            item.reply?.succeed(outcome)
        }
        appends.answered += UInt64(items.count)
    }

    private func count(_ outcome: AppendOutcome) {
        switch outcome {
        case .entered: statistics.published += 1
        case .duplicate: statistics.duplicates += 1
        case .refused(let refused):
            statistics.countRefusal(refused.code)
            if refused.code == .storageFull { core.log.log(.error, "a publish found the store full") }
        }
    }
}
