import DequeModule
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Reads of the log for the sessions of one event loop.
///
/// Sessions that stand at the same place of a channel share one read: when a room of thousands is woken, its subscribers
/// ask for the same page within one tick, and the store is asked once. A read under way is never joined, because it may
/// have begun before the entry that woke the session. Pages of history take their turn in the same queue. Bounded by the
/// sessions: each has at most one read a channel, and one page of history.
struct ReadQueue {
    enum Stretch: Hashable, Sendable {
        /// What delivery reads: on from a place.
        case next(after: Offset, upTo: Offset?, maximumBytes: Int)
        /// A page of history.
        case page(LogRange)
    }

    struct Key: Hashable, Sendable {
        let channel: ChannelKey
        let stretch: Stretch
    }

    fileprivate struct Reader {
        let host: SessionHost
        /// The request for history that the answer is for; nil for delivery.
        let history: UInt64?
    }

    fileprivate var order: Deque<Key> = []
    fileprivate var waiting: [Key: [Reader]] = [:]
    fileprivate var underWay: [UInt64: [Reader]] = [:]
    fileprivate var nextRead: UInt64 = 0
    fileprivate var startScheduled = false
    /// Pages that not all of their readers have got yet.
    fileprivate var answers: Deque<Answer> = []
    fileprivate var answersScheduled = false

    fileprivate struct Answer {
        let key: Key
        let result: Result<SessionPage, StoreError>
        let readers: [Reader]
        var next = 0
    }

    var isEmpty: Bool { waiting.isEmpty && underWay.isEmpty && answers.isEmpty }
}

extension ServerLoop {
    /// Queues a read for a session; the answer comes to ``SessionHost/readDone(_:_:now:)``, or for a request for history to
    /// ``SessionHost/historyDone(_:_:now:)``.
    func read(_ key: ReadQueue.Key, for host: SessionHost, history: UInt64? = nil) {
        if reads.waiting[key] != nil {
            statistics.readsShared += 1
        } else {
            reads.order.append(key)
        }
        reads.waiting[key, default: []].append(ReadQueue.Reader(host: host, history: history))
        guard !reads.startScheduled, reads.underWay.count < core.limits.concurrentReadsPerLoop else { return }
        reads.startScheduled = true
        reference.execute { $0.startReads() }
    }

    private func startReads() {
        reads.startScheduled = false
        while reads.underWay.count < core.limits.concurrentReadsPerLoop, let key = reads.order.popFirst() {
            guard let readers = reads.waiting.removeValue(forKey: key) else { continue }
            reads.nextRead += 1
            let read = reads.nextRead
            reads.underWay[read] = readers
            statistics.reads += 1
            let (store, reference, time) = (core.store, self.reference, core.time())
            Task(executorPreference: executor) {
                let result = await Result { () async throws(StoreError) -> SessionPage in
                    switch key.stretch {
                    case .next(let after, let upTo, let maximumBytes):
                        return SessionPage(
                            try await store.read(
                                key.channel, after: after, upTo: upTo, maximumBytes: maximumBytes, now: time))
                    case .page(let range):
                        return SessionPage(try await store.page(key.channel, range, now: time))
                    }
                }
                reference.run { $0.readDone(read, key: key, result) }
            }
        }
    }

    private func readDone(_ read: UInt64, key: ReadQueue.Key, _ result: Result<SessionPage, StoreError>) {
        guard let readers = reads.underWay.removeValue(forKey: read) else {
            preconditionFailure("a read answers once")
        }
        if case .failure(let error) = result { core.note(error, in: "read") }
        var answer = ReadQueue.Answer(key: key, result: result, readers: readers)
        give(&answer)
        if answer.next < readers.count {
            reads.answers.append(answer)
            scheduleAnswers()
        }
        startReads()
        drainDirty()
        checkIdle()
    }

    /// Gives a page to some of those who wait for it.
    private func give(_ answer: inout ReadQueue.Answer) {
        let now = eventLoop.now
        let end = min(answer.next + FanOut.sessionsPerTick, answer.readers.count)
        for reader in answer.readers[answer.next..<end] {
            if let request = reader.history {
                reader.host.historyDone(request, answer.result, now: now)
            } else {
                reader.host.readDone(answer.key.channel.channel, answer.result, now: now)
            }
        }
        answer.next = end
    }

    private func scheduleAnswers() {
        guard !reads.answersScheduled, !reads.answers.isEmpty else { return }
        reads.answersScheduled = true
        reference.execute { $0.continueAnswers() }
    }

    private func continueAnswers() {
        reads.answersScheduled = false
        guard var answer = reads.answers.popFirst() else { return }
        give(&answer)
        if answer.next < answer.readers.count { reads.answers.append(answer) }
        drainDirty()
        scheduleAnswers()
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
