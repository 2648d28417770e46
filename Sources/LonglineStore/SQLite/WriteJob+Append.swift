import LonglineWire
import NIOCore
import Synchronization

extension WriteJob {
    /// Enters publishes that were handed over together, in their order.
    /// - Parameters:
    ///   - batch: not empty.
    ///   - retryAfter: what is said with a refusal, in milliseconds.
    ///   - answer: is told an outcome for each; once.
    static func append(
        _ batch: ArraySlice<AppendRequest>, retryAfter: UInt64,
        answer: @escaping @Sendable ([AppendOutcome]) -> Void
    ) -> WriteJob {
        var job = WriteJob(
            requests: batch.count, bytes: batch.reduce(0) { $0 + $1.publish.payload.readableBytes + 256 },
            perform: { logic in
                let outcomes = try batch.map { try logic.append($0) }
                return { answer(outcomes) }
            },
            refuse: { error in
                answer(
                    batch.map {
                        .refused(Refused(id: $0.publish.id, code: error.refusal, retryAfter: retryAfter))
                    })
            })
        guard batch.count > 1 else { return job }
        job.parts = {
            let middle = batch.startIndex + batch.count / 2
            // The first half is answered before the other one is written.
            let first = Mutex<[AppendOutcome]>([])
            return [
                append(batch[..<middle], retryAfter: retryAfter) { outcomes in first.withLock { $0 = outcomes } },
                append(batch[middle...], retryAfter: retryAfter) { outcomes in
                    answer(first.withLock { $0 } + outcomes)
                },
            ]
        }
        return job
    }
}
