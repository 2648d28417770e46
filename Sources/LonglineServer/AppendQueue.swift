import DequeModule
import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Publishes of one event loop on their way into the store.
///
/// ```
///   sessions ─▶ waiting ─▶ (one batch) under way in the store ─▶ answers and wakes
/// ```
/// One batch is under way at a time, and what comes meanwhile is the next one: order is kept along every channel, and
/// batches grow with the load. Loops' batches share transactions inside the store. Bounded by
/// ``ServerLimits/appendsPerSession`` and ``ServerLimits/appendBytesPerLoop``: beyond, a publish is refused, never queued.
struct AppendQueue {
    struct Item {
        let host: SessionHost
        let request: AppendRequest
    }

    fileprivate(set) var waiting: Deque<Item> = []
    fileprivate(set) var underWay: [Item] = []
    fileprivate(set) var bytes = 0
    fileprivate var flushScheduled = false
    /// Publishes that were answered, and who waits until so many are.
    fileprivate var answered: UInt64 = 0
    private var waiters: [(answered: UInt64, promise: EventLoopPromise<Void>)] = []

    var isEmpty: Bool { waiting.isEmpty && underWay.isEmpty }

    /// Succeeds once everything is answered that is queued now.
    mutating func whenAnswered(_ promise: EventLoopPromise<Void>) {
        waiters.append((answered + UInt64(waiting.count + underWay.count), promise))
        tellWaiters()
    }

    fileprivate mutating func tellWaiters() {
        while let first = waiters.first, first.answered <= answered { waiters.removeFirst().promise.succeed() }
    }
}

extension ServerLoop {
    /// Queues a publish.
    /// - Returns: false when there is no room for it now.
    func append(_ request: AppendRequest, from host: SessionHost) -> Bool {
        let size = request.publish.payload.readableBytes
        guard
            host.appendsWaiting < core.limits.appendsPerSession,
            appends.bytes + size <= core.limits.appendBytesPerLoop
        else { return false }
        appends.bytes += size
        host.appendsWaiting += 1
        appends.waiting.append(AppendQueue.Item(host: host, request: request))
        if appends.underWay.isEmpty && !appends.flushScheduled {
            // At the end of the tick, so that everything the tick's packets bring shares one batch.
            appends.flushScheduled = true
            reference.execute { $0.flushAppends() }
        }
        return true
    }

    private func flushAppends() {
        appends.flushScheduled = false
        guard appends.underWay.isEmpty, !appends.waiting.isEmpty else { return }
        let count = min(appends.waiting.count, core.limits.appendBatch)
        appends.underWay = Array(appends.waiting.prefix(count))
        appends.waiting.removeFirst(count)
        let batch = appends.underWay.map(\.request)
        let (store, reference) = (core.store, self.reference)
        Task {
            let outcomes = await store.append(batch)
            reference.execute { $0.appended(outcomes) }
        }
    }

    private func appended(_ outcomes: [AppendOutcome]) {
        let items = appends.underWay
        appends.underWay = []
        precondition(items.count == outcomes.count, "the store answers every publish of a batch")
        let now = eventLoop.now
        var heads: [ChannelKey: Position] = [:]
        for (item, outcome) in zip(items, outcomes) {
            appends.bytes -= item.request.publish.payload.readableBytes
            let tenant = item.request.device.tenant
            if case .entered(let published, _, let copy) = outcome {
                // Offsets of one channel grow along the batch: the last one is the head.
                heads[ChannelKey(tenant: tenant, channel: item.request.channel)] = published.position
                if let copy { heads[ChannelKey(tenant: tenant, channel: copy.channel)] = copy.position }
            }
            count(outcome)
            item.host.appended(item.request, outcome, now: now)
        }
        publishWakes(heads)
        drainDirty()
        appends.answered += UInt64(items.count)
        appends.tellWaiters()
        flushAppends()
        checkIdle()
    }

    private func count(_ outcome: AppendOutcome) {
        switch outcome {
        case .entered: statistics.published += 1
        case .duplicate: statistics.duplicates += 1
        case .refused(let refused):
            statistics.refusals[refused.code, default: 0] += 1
            if refused.code == .storageFull { core.log.log(.error, "a publish found the store full") }
        }
    }
}
