import DequeModule
import LonglineLinks
import LonglineStore
import LonglineWire
import NIOCore

/// Publishes of the app's server that wait until it is known whether their sender's account is being erased.
///
/// They go on in the order of the calls, whichever look-up is answered first: a publish that overtook the one before it in its outbox
/// would have that one refused for good. Bounded in bytes by ``ServerLimits/appendBytesPerLoop``, as the queue behind it is.
struct ServiceLookups {
    fileprivate struct Item {
        let request: AppendRequest
        let reply: EventLoopPromise<AppendOutcome>
        /// Whether the account is being erased; nil: not known yet.
        var isErasing: Result<Bool, StoreError>?
    }

    fileprivate var items: Deque<Item> = []
    /// The number of the first of these.
    fileprivate var first: UInt64 = 0
    fileprivate(set) var waiting = WaitingPublishes()
}

/// Why a publish of the app's own server was not entered.
struct AccountIsBeingErased: Error {}

extension ServerLoop {
    /// Publishes as a user whose account is not being erased.
    ///
    /// It is under way from before the store is asked until the store answered: an erasure waits for what it finds under way once it is
    /// resolved, so that nothing of the user's is entered behind its steps.
    func publishUnlessErasing(_ request: AppendRequest, reply: EventLoopPromise<AppendOutcome>) {
        let waiting = lookups.waiting
        guard
            waiting.count == 0
                || waiting.bytes + WaitingPublishes.cost(request) <= core.limits.appendBytesPerLoop
        else { return refuseForNow(request, reply) }
        let (reference, store, sender, work) = (self.reference, core.store, request.device.userKey, beginWork())
        reply.futureResult.whenComplete { _ in reference.run { $0.endWork(work) } }
        let number = lookups.first + UInt64(lookups.items.count)
        lookups.items.append(ServiceLookups.Item(request: request, reply: reply))
        lookups.waiting.add(request)
        LoopExecutor.start(on: executor) {
            let answer = await Result { () async throws(StoreError) -> Bool in
                try await store.isErasurePending(of: sender.user, in: sender.tenant)
            }
            reference.run { $0.lookedUp(number, answer) }
        }
    }

    /// Takes an answer of the store, then does what waited for that and was known already.
    private func lookedUp(_ number: UInt64, _ answer: Result<Bool, StoreError>) {
        lookups.items[Int(number - lookups.first)].isErasing = answer
        while let item = lookups.items.first, let isErasing = item.isErasing {
            lookups.items.removeFirst()
            lookups.first += 1
            lookups.waiting.remove(item.request)
            switch isErasing {
            case .success(false):
                if !append(item.request, reply: item.reply) { refuseForNow(item.request, item.reply) }
            case .success(true): item.reply.fail(AccountIsBeingErased())
            case .failure(let error): item.reply.fail(error)
            }
        }
    }

    private func refuseForNow(_ request: AppendRequest, _ reply: EventLoopPromise<AppendOutcome>) {
        let retryAfter = core.limits.retryAfter.wholeMilliseconds
        reply.succeed(.refused(Refused(id: request.publish.id, code: .overloaded, retryAfter: retryAfter)))
    }
}
