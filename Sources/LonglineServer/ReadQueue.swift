import DequeModule
import LonglineLinks
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
        /// The next bytes of an entry's payload.
        case payload(of: Offset, from: UInt64, maximumBytes: Int)
    }

    struct Key: Hashable, Sendable {
        let channel: ChannelKey
        let stretch: Stretch
    }

    /// What was read.
    enum Found: Sendable {
        case page(SessionPage)
        case payload(ByteBuffer?)
    }

    fileprivate struct Reader {
        let host: SessionHost
        let purpose: Purpose
    }

    /// What an answer is for.
    enum Purpose {
        case delivery
        /// A request for history.
        case history(UInt64)
        case payload(PayloadRead)
    }

    fileprivate var order: Deque<Key> = []
    fileprivate var waiting: [Key: [Reader]] = [:]
    fileprivate var underWay: [UInt64: [Reader]] = [:]
    fileprivate var nextRead: UInt64 = 0
    fileprivate var startScheduled = false
    fileprivate var isStarting = false
    /// Pages that not all of their readers have got yet.
    fileprivate var answers: Deque<Answer> = []
    fileprivate var answersScheduled = false

    fileprivate struct Answer {
        let key: Key
        let result: Result<Found, StoreError>
        let readers: [Reader]
        var next = 0
    }

    var isEmpty: Bool { waiting.isEmpty && underWay.isEmpty && answers.isEmpty }
}

extension ServerLoop {
    /// Queues a read for a session; the answer comes to ``SessionHost/readDone(_:_:now:)``, for a request for history to
    /// ``SessionHost/historyDone(_:_:now:)``, and for a payload to ``SessionHost/payloadDone(_:_:now:)``.
    func read(_ key: ReadQueue.Key, for host: SessionHost, purpose: ReadQueue.Purpose = .delivery) {
        if reads.waiting[key] != nil {
            statistics.readsShared += 1
        } else {
            reads.order.append(key)
        }
        reads.waiting[key, default: []].append(ReadQueue.Reader(host: host, purpose: purpose))
        scheduleReads()
    }

    private func scheduleReads() {
        guard !reads.startScheduled, reads.underWay.count < core.limits.concurrentReadsPerLoop else { return }
        reads.startScheduled = true
        reference.execute { $0.startReads() }
    }

    private func startReads() {
        reads.startScheduled = false
        // A page that is in memory is given at once, and brings the next question: it waits for its turn in this loop.
        guard !reads.isStarting else { return }
        reads.isStarting = true
        defer { reads.isStarting = false }
        var budget = core.limits.concurrentReadsPerLoop
        while reads.underWay.count < core.limits.concurrentReadsPerLoop, let key = reads.order.popFirst() {
            guard budget > 0 else {
                reads.order.prepend(key)
                return scheduleReads()
            }
            budget -= 1
            guard let readers = reads.waiting.removeValue(forKey: key) else { continue }
            reads.nextRead += 1
            let read = reads.nextRead
            reads.underWay[read] = readers
            statistics.reads += 1
            let (store, reference, time) = (core.store, self.reference, core.time())
            LoopExecutor.start(on: executor) {
                let result = await Result { () async throws(StoreError) -> ReadQueue.Found in
                    switch key.stretch {
                    case .next(let after, let upTo, let maximumBytes):
                        let page = try await store.read(
                            key.channel, after: after, upTo: upTo, maximumBytes: maximumBytes, now: time)
                        return .page(SessionPage(page))
                    case .page(let range):
                        return .page(SessionPage(try await store.page(key.channel, range, now: time)))
                    case .payload(let offset, let from, let maximumBytes):
                        return .payload(
                            try await store.payload(
                                of: offset, in: key.channel, from: from, maximumBytes: maximumBytes))
                    }
                }
                reference.run { $0.readDone(read, key: key, result) }
            }
        }
    }

    private func readDone(_ read: UInt64, key: ReadQueue.Key, _ result: Result<ReadQueue.Found, StoreError>) {
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
        let result = answer.result
        for reader in answer.readers[answer.next..<end] {
            switch reader.purpose {
            case .delivery: reader.host.readDone(answer.key.channel.channel, result.map(\.page), now: now)
            case .history(let request): reader.host.historyDone(request, result.map(\.page), now: now)
            case .payload(let read): reader.host.payloadDone(read, result.map(\.payload), now: now)
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

extension ReadQueue.Found {
    fileprivate var page: SessionPage {
        guard case .page(let page) = self else { preconditionFailure("a read of a page brings one") }
        return page
    }
    fileprivate var payload: ByteBuffer? {
        guard case .payload(let payload) = self else { preconditionFailure("a read of a payload brings one") }
        return payload
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
            head: page.head, first: page.first,
            stay: page.stay.map { SessionPage.Stay(after: $0.after, upTo: $0.upTo) })
    }
}
