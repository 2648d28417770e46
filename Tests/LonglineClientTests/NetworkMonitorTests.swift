import Glibc
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Network monitor", .timeLimit(.minutes(1)))
struct NetworkMonitorTests {
    /// A machine whose route socket is one end of a pair; the test has the other end.
    private final class Machine: Sendable {
        let addresses = Mutex<Set<String>>(["192.0.2.1"])
        let opened: AsyncStream<CInt>
        private let open: AsyncStream<CInt>.Continuation

        init() { (opened, open) = AsyncStream.makeStream() }

        var source: NetworkMonitor.Source {
            NetworkMonitor.Source(
                socket: {
                    var ends: (CInt, CInt) = (-1, -1)
                    let made = withUnsafeMutableBytes(of: &ends) { bytes in
                        socketpair(
                            AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0,
                            bytes.assumingMemoryBound(to: CInt.self).baseAddress)
                    }
                    guard made == 0 else { return nil }
                    self.open.yield(ends.1)
                    return ends.0
                },
                addresses: { self.addresses.withLock { $0 } })
        }
    }

    @Test("the address of an interface that is down is none of the machine's")
    func interfaceDown() throws {
        let told = try SocketAddress(ipAddress: "192.0.2.7", port: 0).withSockAddr { pointer, _ in
            [UInt32(0), 1].map { flags -> String? in
                var entry = ifaddrs()
                entry.ifa_addr = UnsafeMutablePointer(mutating: pointer)
                entry.ifa_flags = flags
                return NetworkMonitor.usableAddress(entry)
            }
        }
        #expect(told == [nil, "192.0.2.7"])
        #expect(NetworkMonitor.present()?.contains("127.0.0.1") == true)
    }

    @Test("a route socket that is lost is replaced, and what changed meanwhile is told")
    func lostSocket() async throws {
        let machine = Machine()
        let (changes, change) = AsyncStream.makeStream(of: AddressChange.self)
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let source = machine.source
        let monitor = try await loop.submit {
            let monitor = NetworkMonitor(loop: loop, logger: Logger(label: "test"), source: source) {
                change.yield($0)
            }
            monitor.start()
            return NIOLoopBound(monitor, eventLoop: loop)
        }.get()
        var sockets = machine.opened.makeAsyncIterator()
        var told = changes.makeAsyncIterator()
        let first = try #require(await sockets.next())
        machine.addresses.withLock { _ = $0.insert("192.0.2.2") }
        close(first)
        #expect(await told.next()?.new == ["192.0.2.2"])
        let second = try #require(await sockets.next())
        machine.addresses.withLock { _ = $0.remove("192.0.2.1") }
        #expect(write(second, "x", 1) == 1)
        #expect(await told.next()?.gone == ["192.0.2.1"])
        try await loop.submit { monitor.value.stop() }.get()
        close(second)
    }
}
