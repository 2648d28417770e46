import DequeModule
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Reads of the log for the sessions of one event loop.
///
/// Sessions that stand at the same place of a channel share one read: when a room of thousands is woken, its subscribers
/// ask for the same page within one tick, and the store is asked once. A read under way is never joined, because it may
/// have begun before the entry that woke the session. Bounded by the sessions: each has at most one read a channel.
struct ReadQueue {
    struct Key: Hashable, Sendable {
        let channel: ChannelKey
        let after: Offset
        let upTo: Offset?
        let maximumBytes: Int
    }

    fileprivate var order: Deque<Key> = []
    fileprivate var waiting: [Key: [SessionHost]] = [:]
    fileprivate var underWay: [UInt64: [SessionHost]] = [:]
    fileprivate var nextRead: UInt64 = 0
    fileprivate var startScheduled = false

    var isEmpty: Bool { waiting.isEmpty && underWay.isEmpty }
}

extension ServerLoop {
    /// Queues a read for a session; the answer comes to ``SessionHost/readDone(_:_:now:)``.
    func read(_ key: ReadQueue.Key, for host: SessionHost) {
        if reads.waiting[key] != nil {
            statistics.readsShared += 1
        } else {
            reads.order.append(key)
        }
        reads.waiting[key, default: []].append(host)
        guard !reads.startScheduled, reads.underWay.count < core.limits.concurrentReadsPerLoop else { return }
        reads.startScheduled = true
        reference.execute { $0.startReads() }
    }

    private func startReads() {
        reads.startScheduled = false
        while reads.underWay.count < core.limits.concurrentReadsPerLoop, let key = reads.order.popFirst() {
            guard let hosts = reads.waiting.removeValue(forKey: key) else { continue }
            reads.nextRead += 1
            let read = reads.nextRead
            reads.underWay[read] = hosts
            statistics.reads += 1
            let (store, reference, time) = (core.store, self.reference, core.time())
            Task {
                let result = await Result { () async throws(StoreError) in
                    SessionPage(
                        try await store.read(
                            key.channel, after: key.after, upTo: key.upTo, maximumBytes: key.maximumBytes, now: time))
                }
                reference.execute { $0.readDone(read, key: key, result) }
            }
        }
    }

    private func readDone(_ read: UInt64, key: ReadQueue.Key, _ result: Result<SessionPage, StoreError>) {
        guard let hosts = reads.underWay.removeValue(forKey: read) else {
            preconditionFailure("a read answers once")
        }
        if case .failure(let error) = result { core.note(error, in: "read") }
        let now = eventLoop.now
        for host in hosts { host.readDone(key.channel.channel, result, now: now) }
        startReads()
        drainDirty()
        checkIdle()
    }
}

extension SessionPage {
    /// The store's page in the session's terms.
    init(_ page: LogPage) {
        self.init(
            epoch: page.epoch,
            items: page.items.map { item in
                switch item {
                case .entry(let entry): .entry(entry)
                case .skip(let skip): .skip(skip)
                }
            },
            head: page.head, first: page.first)
    }
}
