import Glibc
import HostNames
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Parts of the transport")
struct PartsTests {
    @Test(
        "Only addresses that can be answered are",
        arguments: [
            ("127.0.0.1", 1, true), ("10.1.2.3", 443, true), ("127.0.0.1", 0, false), ("0.0.0.0", 5, false),
            ("224.0.0.1", 5, false), ("255.255.255.255", 5, false), ("240.0.0.1", 5, false), ("::1", 5, true),
            ("::", 5, false), ("ff02::1", 5, false), ("2001:db8::1", 5, true),
        ] as [(String, UInt16, Bool)])
    func answerable(host: String, port: UInt16, expected: Bool) throws {
        #expect(try #require(QUICSocketAddress(numericHost: host, port: port)).isAnswerable == expected)
    }

    @Test("Addresses keep their value between NIO and the engine", arguments: ["127.0.0.1", "2001:db8::17"])
    func conversion(host: String) throws {
        let nio = try SocketAddress(ipAddress: host, port: 4711)
        let engine = try #require(QUICSocketAddress(nio))
        #expect(engine.host == host && engine.port == 4711)
        #expect(SocketAddress(engine) == nio)
    }

    @Test("A wildcard stands for concrete addresses, never for itself")
    func wildcard() throws {
        let expanded = try LocalAddresses.expand(SocketAddress(ipAddress: "0.0.0.0", port: 99))
        #expect(expanded.contains(try SocketAddress(ipAddress: "127.0.0.1", port: 99)))
        #expect(expanded.allSatisfy { !$0.isWildcard })
        let concrete = try SocketAddress(ipAddress: "127.0.0.2", port: 99)
        #expect(try LocalAddresses.expand(concrete) == [concrete])
        let local = try LocalAddresses.toward(concrete)
        #expect(local.ipAddress?.hasPrefix("127.") == true && local.port == 0)
        let path = try SocketAddress(unixDomainSocketPath: "/nowhere")
        let error = #expect(throws: QUICTransportError.self) { try LocalAddresses.toward(path) }
        #expect(error?.code == .unreachable)
    }

    @Test("A program that is started meanwhile does not get the socket that asks for a route")
    func probeIsClosedOnExec() throws {
        let descriptor = SystemRoutes.probe(isIPv6: false)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test(
        "The worker is read from packets whose connection ID the server chose",
        arguments: [
            ([0x40, 7, 1, 2], 7), ([0xE0, 0, 0, 0, 1, 20, 9, 1], 9), ([0xC0, 0, 0, 0, 1, 20, 9, 1], nil),
            ([0xD0, 0, 0, 0, 1, 20, 9, 1], nil),
            ([0xF0, 0x6B, 0x33, 0x43, 0xCF, 20, 4, 1], 4), ([0xE0, 0x6B, 0x33, 0x43, 0xCF, 20, 4, 1], nil),
            ([0xE0, 1, 2, 3, 4, 20, 9, 1], nil), ([0xE0, 0, 0], nil), ([0x00, 7, 1, 2], 7), ([0x40], nil), ([], nil),
        ] as [([UInt8], UInt8?)])
    func worker(datagram: [UInt8], expected: UInt8?) {
        #expect(datagram.withUnsafeBytes { LoopRoutes.workerID(of: $0, at: 0) } == expected)
    }

    @Test("The worker is read from where the layout has it")
    func workerBehindTheServerID() {
        let short: [UInt8] = [0x40, 1, 2, 3, 4, 9]
        #expect(short.withUnsafeBytes { LoopRoutes.workerID(of: $0, at: 4) } == 9)
        #expect(short.withUnsafeBytes { LoopRoutes.workerID(of: $0, at: 5) } == nil)
    }

    @Test("What is on record of a mailbox is stale when much less waits, or as little as anyone may keep")
    func recordedSize() async throws {
        func isStale(afterTaking taken: Int, of sizes: [Int]) async throws -> Bool {
            let mailbox = Mailbox<Int>(limit: 100, policy: .refuse) { $0 }
            for size in sizes { mailbox.put(size) }
            #expect(mailbox.recordSize() == sizes.reduce(0, +))
            #expect(!mailbox.isRecordStale)
            for _ in 0..<taken { _ = try await mailbox.next() }
            return mailbox.isRecordStale
        }
        #expect(try await !isStale(afterTaking: 1, of: [1, 4_097]))
        #expect(try await isStale(afterTaking: 1, of: [1, 4_096]))
        #expect(try await !isStale(afterTaking: 1, of: [2_000, 2_000]))
        #expect(try await isStale(afterTaking: 2, of: [2_000, 2_000]))
        #expect(try await !isStale(afterTaking: 1, of: [65_535, 5_000]))
        #expect(try await isStale(afterTaking: 1, of: [65_536, 5_000]))
    }

    @Test("A mailbox drops the oldest or refuses, ends after its last element, and loses none to a cancelled taker")
    func mailbox() async throws {
        let dropping = Mailbox<Int>(limit: 2, policy: .dropOldest)
        #expect((1...3).map { dropping.put($0) } == [.taken, .taken, .tookOldestsPlace])
        dropping.finish()
        #expect(dropping.put(4) == .ended)
        #expect(try await dropping.next() == 2)
        #expect(try await dropping.next() == 3)
        #expect(try await dropping.next() == nil)

        let refusing = Mailbox<Int>(limit: 1, policy: .refuse)
        #expect(refusing.put(1) == .taken)
        #expect(refusing.put(2) == .refused)
        #expect(try await refusing.next() == 1)
        let taker = Task { try await refusing.next() }
        taker.cancel()
        await #expect(throws: CancellationError.self) { _ = try await taker.value }
        refusing.put(5)
        #expect(try await refusing.next() == 5)
    }

    @Test("Takers of a mailbox that were cancelled don't pile up behind one that waits")
    func cancelledTakers() async throws {
        let mailbox = Mailbox<Int>(limit: 1, policy: .refuse)
        /// Takes, and waits by the time this returns.
        func taker() async -> Task<Int?, any Error> {
            let before = mailbox.takerCount
            let task = Task { try await mailbox.next() }
            while mailbox.takerCount == before { await Task.yield() }
            return task
        }
        let first = await taker()
        for _ in 0..<1000 {
            let cancelled = await taker()
            cancelled.cancel()
            await #expect(throws: CancellationError.self) { _ = try await cancelled.value }
        }
        #expect((1...16).contains(mailbox.takerCount))
        let second = await taker()
        #expect(mailbox.put(1) == .taken)
        #expect(mailbox.put(2) == .taken)
        #expect(try await first.value == 1)
        #expect(try await second.value == 2)
        #expect(mailbox.takerCount == 0)
    }

    @Test("A queue between loops is bounded")
    func handover() throws {
        let queue = HandoverQueue(eventLoop: MultiThreadedEventLoopGroup.singleton.next()) {}
        let path = QUICPath(
            local: QUICSocketAddress(ipv4: (127, 0, 0, 1), port: 1),
            remote: QUICSocketAddress(ipv4: (127, 0, 0, 1), port: 2))
        let item = HandedDatagrams(bytes: ByteBuffer(string: "xxxxx"), segmentSize: 2, path: path, ecn: .notECT)
        #expect(item.count == 3)
        var taken = 0
        while queue.offer(item), taken < 100_000 { taken += 1 }
        #expect(taken == 4096 / 3, "datagrams count")
        #expect(queue.take().count == taken)
        #expect(queue.offer(item))
        _ = queue.take()

        let large = HandedDatagrams(
            bytes: ByteBuffer(repeating: 1, count: 65_000), segmentSize: 65_000, path: path, ecn: .notECT)
        taken = 0
        while queue.offer(large), taken < 100_000 { taken += 1 }
        #expect(taken == (8 << 20) / 65_000, "and bytes")
        #expect(queue.take().count == taken)
        #expect(queue.offer(large))
    }

    @Test("Joined datagrams go to their owners in as few pieces as can be, in order")
    func joinedDatagrams() {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let queues = (0..<3).map { _ in HandoverQueue(eventLoop: loop) {} }
        let routes = LoopRoutes(queues, workerOffset: 0)
        // Short headers of four bytes; the second one names the worker.
        func run(_ workers: [UInt8], last: Int = 4) -> [UInt8] {
            Array(workers.enumerated().flatMap { [0x40, $1, UInt8($0), 0] }.dropLast(4 - last))
        }
        func pieces(_ bytes: [UInt8], worker: Int) -> [[Int]] {
            var result: [[Int]] = []
            bytes.withUnsafeBytes { bytes in
                routes.forEachRun(in: bytes, segmentSize: 4, worker: worker) { piece, owner in
                    let owner = queues.firstIndex { $0 === owner } ?? -1
                    result.append([piece.count, Int(piece.first ?? 0), piece.count > 2 ? Int(piece[2]) : 0, owner])
                }
            }
            return result
        }
        #expect(pieces(run([1, 1, 1, 1]), worker: 0) == [[16, 0x40, 0, 1]])
        #expect(pieces(run([1, 1, 1, 1], last: 2), worker: 1) == [[14, 0x40, 0, -1]])
        #expect(
            pieces(run([0, 2, 2, 1, 0]), worker: 0) == [
                [4, 0x40, 0, -1], [8, 0x40, 1, 2], [4, 0x40, 3, 1], [4, 0x40, 4, -1],
            ])
        #expect(pieces(run([9]), worker: 0) == [[4, 0x40, 0, -1]], "nobody's")
        #expect(pieces([], worker: 0).isEmpty)
    }

    @Test("What a peer says is fit for a log line")
    func printable() {
        #expect("a\nb\u{7f}".printable == "a?b?")
        #expect(String(repeating: "x", count: 500).printable.count == 128)
    }
}
