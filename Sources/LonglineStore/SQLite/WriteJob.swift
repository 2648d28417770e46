/// One caller's write, waiting for a transaction.
struct WriteJob: Sendable {
    /// What it weighs against the queue's limits.
    let requests: Int
    let bytes: Int
    /// Does the work within a transaction. What it returns is called once the transaction is on disk, and answers the
    /// caller. It may run a second time when a transaction that it shared failed.
    let perform: @Sendable (inout StoreLogic<SQLiteTables>) throws -> @Sendable () -> Void
    /// Answers the caller that nothing was stored.
    let refuse: @Sendable (StoreError) -> Void
    /// Smaller jobs in its place, to be done in their order, which answer the caller together; nil: it is one.
    var parts: (@Sendable () -> [WriteJob])?
}

/// Writes that wait for the writer: bounded, first in, first out.
///
/// Not thread-safe: ``GroupCommit`` holds its lock.
struct WriteQueue {
    private var jobs: [WriteJob] = []
    private var taken = 0
    private(set) var requests = 0
    private(set) var bytes = 0
    let maximumRequests: Int
    let maximumBytes: Int

    init(maximumRequests: Int, maximumBytes: Int) {
        self.maximumRequests = maximumRequests
        self.maximumBytes = maximumBytes
    }

    var isEmpty: Bool { taken == jobs.count }

    /// - Returns: false when the queue is at its limit. An empty queue takes any job.
    mutating func add(_ job: WriteJob) -> Bool {
        guard isEmpty || (requests + job.requests <= maximumRequests && bytes + job.bytes <= maximumBytes) else {
            return false
        }
        jobs.append(job)
        requests += job.requests
        bytes += job.bytes
        return true
    }

    /// Takes what is pending, up to a transaction's limits; at least one job when there is one.
    mutating func next(maximumRequests: Int, maximumBytes: Int) -> [WriteJob] {
        var batch: [WriteJob] = []
        var room = maximumRequests
        var space = maximumBytes
        while taken < jobs.count {
            let job = jobs[taken]
            guard batch.isEmpty || (job.requests <= room && job.bytes <= space) else { break }
            room -= job.requests
            space -= job.bytes
            requests -= job.requests
            bytes -= job.bytes
            batch.append(job)
            taken += 1
        }
        if taken == jobs.count {
            jobs.removeAll(keepingCapacity: jobs.count <= 1_024)
            taken = 0
        } else if taken > 1_024, taken > jobs.count / 2 {
            jobs.removeFirst(taken)
            taken = 0
        }
        return batch
    }

    mutating func removeAll() -> [WriteJob] { next(maximumRequests: .max, maximumBytes: .max) }
}
