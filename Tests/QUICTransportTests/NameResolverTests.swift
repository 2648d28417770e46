import Foundation
import Glibc
import HostNames
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import QUICEngine
@testable import QUICTransport

/// A resolver whose answers come when the test says so.
private final class HeldAnswers: Sendable {
    private let answers: Mutex<[Result<[String], QUICTransportError>]>
    private let gate = DispatchSemaphore(value: 0)
    let asked = Mailbox<String>(limit: 64, policy: .refuse)

    /// Lookups get these in the order in which they come, the last one again and again.
    init(_ answers: [Result<[String], QUICTransportError>]) { self.answers = Mutex(answers) }

    func lookUp(_ host: String) throws -> [QUICSocketAddress] {
        let answer = answers.withLock { $0.count > 1 ? $0.removeFirst() : $0.first }
        asked.put(host)
        gate.wait()
        return try answer?.get().compactMap { QUICSocketAddress(numericHost: $0, port: 0) } ?? []
    }

    func release(_ count: Int = 1) { for _ in 0..<count { gate.signal() } }
}

@Suite("Looking names up", .timeLimit(.minutes(1)))
struct NameResolverTests {
    private static let failure = QUICTransportError(.resolveFailed, "no such name", advice: "Try another.")
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    private func limits(_ change: (inout NameResolver.Limits) -> Void) -> NameResolver.Limits {
        var limits = NameResolver.Limits()
        change(&limits)
        return limits
    }

    private func ask(_ resolver: NameResolver, _ host: String = "a.test") -> EventLoopFuture<[String]> {
        resolver.resolve(host: host, port: 7, on: loop).map { $0.map { "\($0.ipAddress ?? "?")" } }
    }

    @Test(
        "Families take turns, and who answered last is first",
        arguments: [
            (["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"], nil, ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]),
            (["10.0.0.1", "::1", "::2", "10.0.0.1"], nil, ["10.0.0.1", "::1", "::2"]),
            (["::1", "::2", "10.0.0.1", "10.0.0.2"], "10.0.0.2", ["10.0.0.2", "::1", "10.0.0.1", "::2"]),
            (["::1", "10.0.0.1"], "10.0.0.9", ["::1", "10.0.0.1"]),
            ([], "10.0.0.9", []),
        ] as [([String], String?, [String])])
    func order(addresses: [String], first: String?, expected: [String]) {
        func parse(_ host: String) -> QUICSocketAddress? { QUICSocketAddress(numericHost: host, port: 0) }
        #expect(
            NameResolver.order(addresses.compactMap(parse), first: first.flatMap(parse)) == expected.compactMap(parse))
    }

    @Test("A numeric host is its only address, and nobody is asked")
    func numeric() async throws {
        let resolver = NameResolver { _ in throw Self.failure }
        #expect(try await ask(resolver, "192.0.2.1").get() == ["192.0.2.1"])
        #expect(try await ask(resolver, "::1").get() == ["::1"])
        let error = await #expect(throws: QUICTransportError.self) { try await ask(resolver).get() }
        #expect(error == Self.failure)
    }

    @Test("The system's resolver knows this machine")
    func system() async throws {
        let addresses = try await NameResolver().resolve(host: "localhost", port: 7, on: loop).get()
        #expect(try addresses.contains(loopback(port: 7)))
    }

    @Test("Names are looked up on threads that nothing else runs on")
    func threads() async throws {
        let name = Mutex("")
        let resolver = NameResolver { _ in
            let text = try String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)
            name.withLock { $0 = text }
            return []
        }
        _ = try? await ask(resolver).get()
        #expect(name.withLock { $0 }.hasPrefix("quic-names"))
    }

    @Test("Who asks for a name that is being looked up gets the same answer")
    func joins() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"]), .success(["10.0.0.2"])])
        let resolver = NameResolver(limits: limits { $0.patience = .hours(1) }, lookUp: held.lookUp)
        let both = [ask(resolver, "a.test"), ask(resolver, "A.Test")]
        held.release(2)
        for one in both { #expect(try await one.get() == ["10.0.0.1"]) }
        #expect(try await held.asked.next() == "a.test")
        // What was asked next is the next question: there was one only.
        _ = try await ask(resolver, "b.test").get()
        #expect(try await held.asked.next() == "b.test")
    }

    @Test("Who asks anew doesn't wait for lookups that hang, and the answer is for all", arguments: 1...2)
    func asksAgain(count: Int) async throws {
        let held = HeldAnswers([.failure(Self.failure)])
        let hanging = Mutex(count)
        let resolver = NameResolver(limits: limits { $0.patience = .zero }) { host in
            let hangs = hanging.withLock { left in
                left -= 1
                return left >= 0
            }
            return try hangs ? held.lookUp(host) : [QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 0)]
        }
        let first = (1...count).map { _ in ask(resolver) }
        for _ in first { _ = try await held.asked.next() }
        #expect(try await ask(resolver).get() == ["10.0.0.2"])
        for one in first { #expect(try await one.get() == ["10.0.0.2"]) }
        held.release(count)
    }

    @Test("However often a name that hangs is asked for, other names have threads left")
    func fewThreadsForOneName() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        // Every question comes later than the lookups before it are waited for.
        let resolver = NameResolver(limits: limits { $0.patience = .zero }) { host in
            try host == "dead.test" ? held.lookUp(host) : [QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 0)]
        }
        let waiting = (1...6).map { _ in ask(resolver, "dead.test") }
        for _ in 1...3 { _ = try await held.asked.next() }
        #expect(try await ask(resolver, "other.test").get() == ["10.0.0.2"])
        held.release(6)
        for one in waiting { #expect(try await one.get() == ["10.0.0.1"]) }
    }

    @Test("As many names that hang as shall have threads leave one to others, however often they are asked for")
    func manyNamesThatHang() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        let resolver = NameResolver(
            limits: limits {
                $0.threads = 16
                $0.threadsLeft = 12
                $0.patience = .zero
            }
        ) { host in
            try host.hasPrefix("dead") ? held.lookUp(host) : [QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 0)]
        }
        let waiting = (1...12).flatMap { name in (1...6).map { _ in ask(resolver, "dead\(name).test") } }
        // Four for the first name, and one for each other.
        for _ in 1...15 { _ = try await held.asked.next() }
        #expect(try await ask(resolver, "other.test").get() == ["10.0.0.2"])
        held.release(15)
        for one in waiting { #expect(try await one.get() == ["10.0.0.1"]) }
    }

    @Test("However many names' lookups hang, who asks for one of them anew is answered while there are threads")
    func asksAgainAfterManyHang() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        let hung = Mutex(Set<String>())
        let resolver = NameResolver(
            limits: limits {
                $0.threads = 16
                $0.threadsLeft = 12
                $0.patience = .zero
            }
        ) { host in
            let hangs = hung.withLock { $0.insert(host).inserted }
            return try hangs ? held.lookUp(host) : [QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 0)]
        }
        let waiting = (1...6).map { ask(resolver, "name\($0).test") }
        for _ in waiting { _ = try await held.asked.next() }
        // More than there may be of these at a time: each ends, and counts no more.
        for name in 1...6 { #expect(try await ask(resolver, "name\(name).test").get() == ["10.0.0.2"]) }
        for one in waiting { #expect(try await one.get() == ["10.0.0.2"]) }
        held.release(6)
    }

    @Test("Who waits no longer is told so, and the others go on to wait")
    func leaves() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        let lookups = NameLookups(limits: limits { $0.patience = .hours(1) }, threadNames: "test-", lookUp: held.lookUp)
        let (one, other) = (lookups.ask("a.test", on: loop), lookups.ask("a.test", on: loop))
        lookups.leave(one)
        await #expect(throws: CancellationError.self) { try await one.addresses.get() }
        held.release()
        #expect(try await other.addresses.get().map(\.host) == ["10.0.0.1"])
    }

    @Test("A lookup that nobody waits for when its turn comes takes no thread")
    func leavesTheQueue() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        let lookups = NameLookups(limits: limits { $0.threads = 1 }, threadNames: "test-", lookUp: held.lookUp)
        let first = lookups.ask("a.test", on: loop)
        let (gone, waiting) = (lookups.ask("b.test", on: loop), lookups.ask("c.test", on: loop))
        lookups.leave(gone)
        held.release(2)
        for one in [first, waiting] { #expect(try await one.addresses.get().map(\.host) == ["10.0.0.1"]) }
        #expect(try await held.asked.next() == "a.test")
        #expect(try await held.asked.next() == "c.test")
        await #expect(throws: CancellationError.self) { try await gone.addresses.get() }
        // Its name can be asked for again.
        held.release()
        #expect(try await lookups.ask("b.test", on: loop).addresses.get().map(\.host) == ["10.0.0.1"])
    }

    @Test("Where all threads hang and the queue is full, another name is refused at once")
    func bounded() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"])])
        let resolver = NameResolver(
            limits: limits {
                $0.threads = 1
                $0.queue = 1
                $0.patience = .zero
            }, lookUp: held.lookUp)
        let waiting = [ask(resolver, "a.test"), ask(resolver, "b.test")]
        let error = await #expect(throws: QUICTransportError.self) { try await ask(resolver, "c.test").get() }
        #expect(error?.code == .resolverBusy)
        // A name that is being looked up needs no place.
        let joined = ask(resolver, "b.test")
        held.release(2)
        for one in waiting + [joined] { #expect(try await one.get() == ["10.0.0.1"]) }
        held.release()
        #expect(try await ask(resolver, "c.test").get() == ["10.0.0.1"])
    }

    @Test("Where the resolver hangs the last good answer serves, as long as it isn't too old")
    func lastAnswer() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"]), .success(["10.0.0.2"]), .success(["10.0.0.3"])])
        let resolver = NameResolver(
            limits: limits {
                $0.threads = 1
                $0.patience = .milliseconds(1)
            }, lookUp: held.lookUp)
        held.release()
        #expect(try await ask(resolver).get() == ["10.0.0.1"])
        #expect(try await ask(resolver).get() == ["10.0.0.1"])
        // The lookup goes on, for the next.
        held.release()
        while try await ask(resolver).get() != ["10.0.0.2"] { await Task.yield() }
        held.release(64)
    }

    /// What a resolver may say instead of an answer.
    enum Failure: CaseIterable {
        case noServer, noName, nothing

        func thrown() throws -> [QUICSocketAddress] {
            switch self {
            case .noServer: throw SystemResolver.error(of: EAI_AGAIN)
            case .noName: throw SystemResolver.error(of: EAI_NONAME)
            case .nothing: return []
            }
        }
    }

    @Test(
        "Where no name server answers the last good answer serves, and where one says that there is no such name it doesn't",
        arguments: Failure.allCases)
    func noNameServer(failure: Failure) async throws {
        let isDown = Mutex(false)
        let lookUp: NameResolver.LookUp = { _ in
            if isDown.withLock({ $0 }) { return try failure.thrown() }
            return [QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 0)]
        }
        // The lookup's own end is what counts, and not that it takes long; nor is this answer one of the last hour any more.
        let lasting = NameResolver(
            limits: limits {
                $0.patience = .hours(1)
                $0.lastPatience = .hours(1)
                $0.memory = .zero
            }, lookUp: lookUp)
        let brief = NameResolver(limits: limits { $0.lastResort = .zero }, lookUp: lookUp)
        for resolver in [lasting, brief] { #expect(try await ask(resolver).get() == ["10.0.0.1"]) }
        isDown.withLock { $0 = true }
        if failure == .noServer {
            #expect(try await ask(lasting).get() == ["10.0.0.1"])
        } else {
            await #expect(throws: QUICTransportError.self) { try await ask(lasting).get() }
        }
        await #expect(throws: QUICTransportError.self, "too old") { try await ask(brief).get() }
        await #expect(throws: QUICTransportError.self, "never known") { try await ask(lasting, "b.test").get() }
    }

    @Test("Where the resolver goes on to hang an answer serves that is older than that")
    func lastResort() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"]), .success(["10.0.0.2"])])
        let resolver = NameResolver(
            limits: limits {
                $0.patience = .milliseconds(1)
                $0.memory = .zero
                $0.lastPatience = .milliseconds(2)
            }, lookUp: held.lookUp)
        held.release()
        #expect(try await ask(resolver).get() == ["10.0.0.1"])
        #expect(try await ask(resolver).get() == ["10.0.0.1"])
        held.release()
    }

    @Test(
        "As the last resort what answered goes first, whatever another network's resolver said since, and however lately",
        arguments: [TimeAmount.zero, .hours(1)])
    func proven(memory: TimeAmount) async throws {
        let answer = Mutex<[String]?>(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        let resolver = NameResolver(
            limits: limits {
                $0.patience = .hours(1)
                $0.lastPatience = .hours(1)
                $0.memory = memory
            }
        ) { _ in
            guard let addresses = answer.withLock({ $0 }) else { throw SystemResolver.error(of: EAI_AGAIN) }
            return addresses.compactMap { QUICSocketAddress(numericHost: $0, port: 0) }
        }
        _ = try await ask(resolver).get()
        for host in ["10.0.0.2", "10.0.0.3", "10.0.0.2"] {
            resolver.answered("a.test", from: try SocketAddress(ipAddress: host, port: 7))
        }
        // A portal's, which has one address for every name.
        answer.withLock { $0 = ["192.0.2.1", "10.0.0.3"] }
        #expect(try await ask(resolver).get() == ["192.0.2.1", "10.0.0.3"], "the resolver's word holds")
        answer.withLock { $0 = nil }
        #expect(try await ask(resolver).get() == ["10.0.0.2", "10.0.0.3", "192.0.2.1"])
        // Of a name that nothing answered at all that was said counts.
        answer.withLock { $0 = ["10.0.0.4"] }
        _ = try await ask(resolver, "b.test").get()
        answer.withLock { $0 = nil }
        #expect(try await ask(resolver, "b.test").get() == ["10.0.0.4"])
    }

    @Test("Where the resolver is silent for a moment what answered is tried beside its last word")
    func provenBehind() async throws {
        let held = HeldAnswers([.success(["10.0.0.1", "10.0.0.2"]), .success(["192.0.2.1", "10.0.0.2"])])
        let resolver = NameResolver(
            limits: limits {
                $0.threads = 1
                $0.patience = .milliseconds(1)
                $0.lastPatience = .hours(1)
            }, lookUp: held.lookUp)
        held.release()
        _ = try await ask(resolver).get()
        for host in ["10.0.0.2", "10.0.0.1"] {
            resolver.answered("a.test", from: try SocketAddress(ipAddress: host, port: 7))
        }
        // The next word is a portal's.
        held.release()
        while try await !ask(resolver).get().contains("192.0.2.1") { await Task.yield() }
        // Of those behind it the one that answered last in this hour goes first, as it does whatever a resolver says.
        #expect(try await ask(resolver).get() == ["10.0.0.1", "192.0.2.1", "10.0.0.2"])
        held.release(64)
    }

    @Test("An answer that is too old is waited for")
    func oldAnswer() async throws {
        let held = HeldAnswers([.success(["10.0.0.1"]), .success(["10.0.0.2"])])
        let resolver = NameResolver(
            limits: limits {
                $0.patience = .milliseconds(1)
                $0.memory = .zero
                $0.lastPatience = .milliseconds(1)
                $0.lastResort = .zero
            }, lookUp: held.lookUp)
        held.release()
        #expect(try await ask(resolver).get() == ["10.0.0.1"])
        _ = try await held.asked.next()
        let second = ask(resolver)
        _ = try await held.asked.next()
        // Behind the time at which it would have been used.
        try await loop.scheduleTask(in: .milliseconds(2)) {}.futureResult.get()
        held.release()
        #expect(try await second.get() == ["10.0.0.2"])
    }

    @Test("What answered is first, until its time is over, and the oldest name is forgotten for a new one")
    func remembers() async throws {
        func resolver(_ change: (inout NameResolver.Limits) -> Void) -> NameResolver {
            NameResolver(limits: limits(change)) { _ in
                ["10.0.0.1", "10.0.0.2"].compactMap { QUICSocketAddress(numericHost: $0, port: 0) }
            }
        }
        let lasting = resolver { $0.names = 2 }
        let address = try SocketAddress(ipAddress: "10.0.0.2", port: 7)
        lasting.answered("a.test", from: address)
        #expect(try await ask(lasting).get() == ["10.0.0.1", "10.0.0.2"])
        lasting.answered("A.test", from: address)
        #expect(try await ask(lasting).get() == ["10.0.0.2", "10.0.0.1"])
        #expect(try await ask(lasting, "b.test").get() == ["10.0.0.1", "10.0.0.2"])
        #expect(try await ask(lasting, "c.test").get() == ["10.0.0.1", "10.0.0.2"])
        #expect(try await ask(lasting).get() == ["10.0.0.1", "10.0.0.2"])

        let brief = resolver { $0.memory = .zero }
        _ = try await ask(brief).get()
        brief.answered("a.test", from: address)
        #expect(try await ask(brief).get() == ["10.0.0.1", "10.0.0.2"])
    }
}
