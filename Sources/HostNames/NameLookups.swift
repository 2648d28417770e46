package import NIOCore
internal import NIOPosix
internal import Synchronization

/// How many names are looked up at a time, and what is remembered of them.
package struct NameLookupLimits: Sendable {
    /// Lookups at a time.
    package var threads = 4
    /// Threads for one lookup each of as many names. The others but one are for further lookups of names whose lookups hang, and
    /// the last is left to other names.
    package var threadsLeft = 1
    /// Lookups that wait for a thread.
    package var queue = 64
    /// After this time a lookup may hang: an older answer is used instead of waiting on, and who asks anew isn't made to
    /// wait for it. The network that it asked may be gone.
    package var patience = TimeAmount.seconds(1)
    /// How old an answer may be that takes the place of one that doesn't come within ``patience``, and how long the address that
    /// answered last goes before the resolver's first.
    package var memory = TimeAmount.hours(1)
    /// After this time a lookup hangs: an answer is used that is older than ``memory``, too.
    package var lastPatience = TimeAmount.seconds(4)
    /// How old an answer may be that takes the place of one that isn't to be had: a client that was connected for days asks for the name
    /// again only when its network is gone, and the resolver with it.
    package var lastResort = TimeAmount.hours(7 * 24)
    /// Names that something is remembered of; the one that was looked up longest ago goes first.
    package var names = 64

    package init() {}
}

/// Why a name has no addresses.
package enum NameLookupError: Error, Hashable, CustomStringConvertible {
    /// So many lookups wait for a thread already.
    case busy(waiting: Int)
    /// What the system's resolver said.
    case failed(String)
    /// The same, where it says nothing about the name: no name server could be asked, or those that were failed themselves.
    case unavailable(String)
    /// The resolver answered, with nothing.
    case nothingFound

    package var description: String {
        switch self {
        case .busy(let waiting): "the name can't be looked up: \(waiting) others wait for the resolver"
        case .failed(let reason), .unavailable(let reason): "the name could not be resolved (\(reason))"
        case .nothingFound: "the name has no address"
        }
    }
}

/// Lookups of names on a few threads of their own, which everybody who asks for the same name shares.
///
/// `getaddrinfo` waits up to half a minute for a resolver that is gone, and nothing can stop it meanwhile. On these threads it
/// holds up nobody else's work:
/// ```
///  asked ──the name is being looked up, not for long yet,──────> joins ─┐
///    │     or further lookups have all the threads that they may        │
///    ├────a thread, or a place in the queue──> begins ──────────────────┼─> answer: to all who wait for the name
///    └────neither──> busy                                               └─> none in time, or no name server: an older one, if known
/// ```
package final class NameLookups<Address: Hashable & Sendable>: Sendable {
    /// Gives a name's addresses in the order of preference. Blocks.
    package typealias LookUp = @Sendable (_ host: String) throws -> [Address]

    /// What somebody waits for.
    package struct Question: Sendable {
        package let addresses: EventLoopFuture<[Address]>
        fileprivate let waiter: UInt64
        fileprivate let key: String
    }

    private struct Lookup {
        var number: UInt64
        var beganAt: NIODeadline
        /// It began beside another lookup of the same name.
        var isFurther: Bool
        var waiting: [UInt64: EventLoopPromise<[Address]>] = [:]
    }

    private struct Known {
        var addresses: [Address]
        var at: NIODeadline
        var preferred: (address: Address, since: NIODeadline)?
        /// Where somebody of the name answered, the last first. What the resolver of one network says, a portal's say, may be of no use
        /// anywhere: such an answer doesn't take their place.
        var proven: [(address: Address, since: NIODeadline)] = []
    }

    /// So many addresses of a name are known that answered.
    private static var provenAddresses: Int { 4 }

    private struct State {
        var lookups: [String: [Lookup]] = [:]
        /// Those that have a thread or wait for one.
        var count = 0
        /// Of these the ones that began beside another lookup of the same name.
        var further = 0
        var numbers: UInt64 = 0
        var known: [String: Known] = [:]
    }

    private enum Turn {
        case joined
        case begins(UInt64)
        case refused
    }

    private let limits: NameLookupLimits
    private let threadNames: String
    private let lookUp: LookUp
    private let pool: NIOThreadPool
    private let state = Mutex(State())

    /// - Parameter threadNames: what the threads' names begin with.
    package init(limits: NameLookupLimits, threadNames: String, lookUp: @escaping LookUp) {
        self.limits = limits
        self.threadNames = threadNames
        self.lookUp = lookUp
        pool = NIOThreadPool(numberOfThreads: limits.threads)
    }

    deinit { pool.shutdownGracefully { _ in } }

    // MARK: Asking

    /// Asks for a host's addresses, in the resolver's order.
    package func ask(_ host: String, on eventLoop: any EventLoop) -> Question {
        let promise = eventLoop.makePromise(of: [Address].self)
        let (key, now) = (host.lowercased(), NIODeadline.now())
        let (waiter, turn, isKnown) = state.withLock { state in
            let isKnown = state.known[key] != nil
            state.numbers += 1
            return (state.numbers, enter(promise, for: key, now: now, &state), isKnown)
        }
        let question = Question(addresses: promise.futureResult, waiter: waiter, key: key)
        switch turn {
        case .refused:
            promise.fail(NameLookupError.busy(waiting: limits.queue))
            return question
        case .joined: break
        case .begins(let number):
            // At first use; does nothing later.
            pool._start(threadNamePrefix: threadNames)
            pool.submit { self.run(number, host, key, isCancelled: $0 == .cancelled) }
        }
        if isKnown {
            let times = [(limits.patience, false), (limits.lastPatience, true)]
            let impatience = times.map { patience, isLastResort in
                eventLoop.scheduleTask(in: patience) {
                    self.useKnown(for: waiter, of: key, isLastResort: isLastResort)
                }
            }
            promise.futureResult.whenComplete { _ in for task in impatience { task.cancel() } }
        }
        return question
    }

    /// Whoever asked waits no longer. The lookup itself goes on, for the next, if it has a thread already.
    package func leave(_ question: Question) {
        let promise = state.withLock { state in Self.remove(question.waiter, of: question.key, from: &state) }
        promise?.fail(CancellationError())
    }

    /// Who waits has the state's latest number.
    private func enter(
        _ promise: EventLoopPromise<[Address]>, for key: String, now: NIODeadline, _ state: inout State
    ) -> Turn {
        let waiter = state.numbers
        var running = state.lookups[key] ?? []
        if let last = running.indices.last,
            now - running[last].beganAt < limits.patience || !hasThreadForFurther(state)
        {
            running[last].waiting[waiter] = promise
            state.lookups[key] = running
            return .joined
        }
        guard state.count < limits.threads + limits.queue else { return .refused }
        let isFurther = !running.isEmpty
        state.count += 1
        if isFurther { state.further += 1 }
        running.append(Lookup(number: waiter, beganAt: now, isFurther: isFurther, waiting: [waiter: promise]))
        state.lookups[key] = running
        return .begins(waiter)
    }

    /// Whether a name may have a lookup beside one that hangs. Such lookups take no threads that are for names' first ones, and never
    /// the last.
    private func hasThreadForFurther(_ state: State) -> Bool {
        state.further < limits.threads - limits.threadsLeft - 1 && state.count + 1 < limits.threads
    }

    /// A lookup is over.
    private static func end(_ number: UInt64, of key: String, in state: inout State) {
        guard var running = state.lookups[key], let index = running.firstIndex(where: { $0.number == number }) else {
            return
        }
        state.count -= 1
        if running.remove(at: index).isFurther { state.further -= 1 }
        state.lookups[key] = running.isEmpty ? nil : running
    }

    /// On a thread of the pool.
    private func run(_ number: UInt64, _ host: String, _ key: String, isCancelled: Bool) {
        guard isWanted(number, key) else { return }
        let result = Result { () throws -> [Address] in
            guard !isCancelled else { throw CancellationError() }
            let found = try lookUp(host)
            guard !found.isEmpty else { throw NameLookupError.nothingFound }
            return found
        }
        let (waiting, answer) = state.withLock { state in
            var answer = result
            var running = state.lookups[key] ?? []
            var waiting: [EventLoopPromise<[Address]>] = []
            if case .success(let found) = result {
                remember(found, of: key, &state)
                // Whichever lookup brings it: an answer is good for all.
                for index in running.indices {
                    waiting += running[index].waiting.values
                    running[index].waiting = [:]
                }
            } else {
                waiting += running.first { $0.number == number }.map { Array($0.waiting.values) } ?? []
                // As where a network has no name server yet: what isn't heard of the name says nothing about its addresses.
                if case .failure(let error as NameLookupError) = result, case .unavailable = error,
                    let known = lastGood(of: key, isLastResort: true, state)
                {
                    answer = .success(known)
                }
            }
            state.lookups[key] = running
            Self.end(number, of: key, in: &state)
            return (waiting, answer)
        }
        for promise in waiting { promise.completeWith(answer) }
    }

    /// Whether anybody still waits for a lookup that has got its thread. Else it is over: others wait for the thread.
    private func isWanted(_ number: UInt64, _ key: String) -> Bool {
        state.withLock { state in
            guard let lookup = state.lookups[key]?.first(where: { $0.number == number }), lookup.waiting.isEmpty else {
                return true
            }
            Self.end(number, of: key, in: &state)
            return false
        }
    }

    /// The lookup takes too long: one who waits for it goes on with the last good answer, if it isn't too old. The lookup itself
    /// goes on, for the next, if it has a thread already.
    private func useKnown(for waiter: UInt64, of key: String, isLastResort: Bool) {
        let (promise, addresses) = state.withLock { state -> (EventLoopPromise<[Address]>?, [Address]) in
            guard let known = lastGood(of: key, isLastResort: isLastResort, state) else { return (nil, []) }
            return (Self.remove(waiter, of: key, from: &state), known)
        }
        promise?.succeed(addresses)
    }

    /// The addresses that the last good answer named, while it isn't too old, and those that were of use: before it as the last resort,
    /// else behind it, for where it is a portal's.
    private func lastGood(of key: String, isLastResort: Bool, _ state: State) -> [Address]? {
        let now = NIODeadline.now()
        let age = isLastResort ? limits.lastResort : limits.memory
        guard let known = state.known[key], now - known.at < age else { return nil }
        let proven = known.proven.filter { now - $0.since < limits.lastResort }.map { $0.address }
        let (first, then) = isLastResort ? (proven, known.addresses) : (known.addresses, proven)
        return first + then.filter { !first.contains($0) }
    }

    private static func remove(
        _ waiter: UInt64, of key: String, from state: inout State
    ) -> EventLoopPromise<[Address]>? {
        for index in state.lookups[key]?.indices ?? 0..<0 {
            if let promise = state.lookups[key]?[index].waiting.removeValue(forKey: waiter) { return promise }
        }
        return nil
    }

    // MARK: Remembering

    private func remember(_ addresses: [Address], of key: String, _ state: inout State) {
        if state.known[key] == nil, state.known.count >= limits.names,
            let oldest = state.known.min(by: { $0.value.at < $1.value.at })?.key
        {
            state.known[oldest] = nil
        }
        let before = state.known[key]
        state.known[key] = Known(
            addresses: addresses, at: .now(), preferred: before?.preferred, proven: before?.proven ?? [])
    }

    /// This address of a host is of use: it is the preferred one, until its time is over. A host that was not looked up is not known.
    package func answered(_ host: String, from address: Address) {
        let (key, now) = (host.lowercased(), NIODeadline.now())
        state.withLock { state in
            guard let known = state.known[key] else { return }
            if let preferred = known.preferred, preferred.address == address, now - preferred.since < limits.memory {
                return
            }
            var proven = known.proven.filter { $0.address != address }
            proven.insert((address, now), at: 0)
            state.known[key]?.preferred = (address, now)
            state.known[key]?.proven = Array(proven.prefix(Self.provenAddresses))
        }
    }

    /// The address of a host that was of use last.
    package func preferred(of host: String) -> Address? {
        state.withLock { state in
            state.known[host.lowercased()]?.preferred.flatMap {
                NIODeadline.now() - $0.since < limits.memory ? $0.address : nil
            }
        }
    }
}
