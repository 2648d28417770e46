import Foundation
import HostNames
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import QUICTransport

/// Numeric IPv4 hosts in a network without IPv4 (NAT64).
@Suite("IPv4 hosts by a translator", .timeLimit(.minutes(1)))
struct TranslationTests {
    private let loop = MultiThreadedEventLoopGroup.singleton.next()

    /// A network, and what its resolver says.
    private final class Network: Sendable {
        struct State {
            /// Addresses to send from; nil: no route.
            var four: String?
            var six: String? = "2001:db8:1::1"
            /// Of the known name; nil: no name server answers.
            var answer: [String]? = ["192.0.0.170", "64:ff9b::c000:aa", "64:ff9b::c000:ab"]
            var lookups: [String] = []
            /// Lookups wait until the test lets them go.
            var isSilent = false
        }

        let state = Mutex(State())
        /// Where a silent resolver's lookups wait.
        let gate = DispatchSemaphore(value: 0)

        func translation(
            memory: TimeAmount = .hours(1), patience: TimeAmount = .hours(1)
        ) -> AddressTranslation {
            AddressTranslation(
                memory: memory, patience: patience,
                source: { remote in
                    let (four, six) = self.state.withLock { ($0.four, $0.six) }
                    let local = if case .v4 = remote { four } else { six }
                    return local.flatMap { try? SocketAddress(ipAddress: $0, port: 0) }
                },
                lookUp: { name in
                    let (answer, isSilent) = self.state.withLock { state in
                        state.lookups.append(name)
                        return (state.answer, state.isSilent)
                    }
                    if isSilent { self.gate.wait() }
                    guard let answer else { throw NameLookupError.unavailable("no name server") }
                    return try answer.map { try SocketAddress(ipAddress: $0, port: 0) }
                })
        }
    }

    private func ask(_ translation: AddressTranslation, _ host: String = "192.0.2.33") async throws -> [String] {
        let resolver = NameResolver(translation: translation) { _ in [] }
        return try await resolver.resolve(host: host, port: 7, on: loop).get().map { "\($0.ipAddress ?? "?")" }
    }

    @Test(
        "the address is put together by each length of the prefix (RFC 6052 section 2.4)",
        arguments: [
            ("2001:db8:c000:aa::", "2001:db8:c000:221::"), ("2001:db8:1c0:0:aa::", "2001:db8:1c0:2:21::"),
            ("2001:db8:122:c000:0:aa00::", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:3c0:0:aa::", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344:c0:0:aa00:0", "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::c000:aa", "2001:db8:122:344::c000:221"),
            ("64:ff9b::c000:ab", "64:ff9b::c000:221"),
        ])
    func lengths(known: String, expected: String) throws {
        let prefix = try #require(TranslationPrefix(ofKnown: try SocketAddress(ipAddress: known, port: 0)))
        let host = try SocketAddress(ipAddress: "192.0.2.33", port: 7)
        #expect(prefix.translate(host) == (try SocketAddress(ipAddress: expected, port: 7)))
        #expect(prefix.translate(try SocketAddress(ipAddress: "2001:db8::1", port: 7)) == nil)
    }

    @Test(
        "an address without the known host in it, or with it in two places, tells no prefix",
        arguments: ["2001:db8::1", "192.0.0.170", "2001:db8:c000:aa::c000:aa"])
    func noPrefix(address: String) throws {
        #expect(TranslationPrefix(ofKnown: try SocketAddress(ipAddress: address, port: 0)) == nil)
    }

    @Test("where there is IPv6 alone the translated address follows, and the network is asked once")
    func translates() async throws {
        let network = Network()
        let translation = network.translation()
        for _ in 1...2 { #expect(try await ask(translation) == ["192.0.2.33", "64:ff9b::c000:221"]) }
        #expect(network.state.withLock { $0.lookups } == ["ipv4only.arpa"])
        // Another network has another prefix.
        network.state.withLock {
            $0.six = "2001:db8:2::1"
            $0.answer = ["2001:db8:122:344::c000:aa"]
        }
        #expect(try await ask(translation) == ["192.0.2.33", "2001:db8:122:344::c000:221"])
        #expect(network.state.withLock { $0.lookups.count } == 2)
        let brief = network.translation(memory: .zero)
        for _ in 1...2 { _ = try await ask(brief) }
        #expect(network.state.withLock { $0.lookups.count } == 4)
    }

    @Test("where there is IPv4, or nothing, or no prefix is to be had, the host is its only address")
    func leavesAlone() async throws {
        let network = Network()
        network.state.withLock { $0.four = "10.0.0.1" }
        #expect(try await ask(network.translation()) == ["192.0.2.33"])
        network.state.withLock { ($0.four, $0.six) = (nil, nil) }
        #expect(try await ask(network.translation()) == ["192.0.2.33"])
        network.state.withLock { $0.six = "2001:db8:1::1" }
        #expect(try await ask(network.translation(), "2001:db8::5") == ["2001:db8::5"])
        #expect(network.state.withLock { $0.lookups.isEmpty })
        network.state.withLock { $0.answer = nil }
        let translation = network.translation()
        #expect(try await ask(translation) == ["192.0.2.33"])
        // A resolver that was silent is asked again.
        network.state.withLock { $0.answer = ["192.0.0.170"] }
        #expect(try await ask(translation) == ["192.0.2.33"])
        #expect(network.state.withLock { $0.lookups.count } == 2)
    }

    @Test("a resolver that is silent is waited for no longer than its time, and its late answer serves the next")
    func silent() async throws {
        let network = Network()
        network.state.withLock { $0.isSilent = true }
        let translation = network.translation(patience: .zero)
        #expect(try await ask(translation) == ["192.0.2.33"])
        network.state.withLock { $0.isSilent = false }
        network.gate.signal()
        while try await ask(translation) == ["192.0.2.33"] { await Task.yield() }
        #expect(try await ask(translation) == ["192.0.2.33", "64:ff9b::c000:221"])
    }

    @Test("a resolver that is silent or fails leaves what is known of its network, however old, and of no other")
    func lastResort() async throws {
        let network = Network()
        // Of time that is over: the first answer comes, and is old at once.
        let translation = network.translation(memory: .zero, patience: .hours(1))
        let both = ["192.0.2.33", "64:ff9b::c000:221"]
        #expect(try await ask(translation) == both)
        network.state.withLock { $0.answer = nil }
        #expect(try await ask(translation) == both)
        network.state.withLock { $0.six = "2001:db8:2::1" }
        #expect(try await ask(translation) == ["192.0.2.33"])

        let hasty = Network()
        let impatient = hasty.translation(memory: .zero, patience: .milliseconds(1))
        // It may be that the first lookups take longer than that.
        while try await ask(impatient) != both { await Task.yield() }
        hasty.state.withLock { $0.isSilent = true }
        #expect(try await ask(impatient) == both)
        hasty.gate.signal()
    }
}
