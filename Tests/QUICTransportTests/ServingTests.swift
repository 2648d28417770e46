import Dispatch
import Logging
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

private struct Broken: Error {}

/// How many bodies run, and how many ran at a time at most.
private final class RunningBodies: Sendable {
    private struct State {
        var count = 0
        var most = 0
        var awaited: (count: Int, waiter: Waiter<Void>)?
    }
    private let state = Mutex(State())

    var most: Int { state.withLock(\.most) }

    func begin() {
        let waiter: Waiter<Void>? = state.withLock {
            $0.count += 1
            $0.most = max($0.most, $0.count)
            return $0.count == $0.awaited?.count ? $0.awaited?.waiter : nil
        }
        waiter?.finish(.success(()))
    }

    func end() { state.withLock { $0.count -= 1 } }

    /// Waits until so many run.
    func reach(_ count: Int) async throws {
        try await Waiter<Void>().wait { waiter in
            let isReached = self.state.withLock { state in
                state.awaited = (count, waiter)
                return state.count >= count
            }
            if isReached { waiter.finish(.success(())) }
        }
    }
}

@Suite("Tasks that serve and visit", .timeLimit(.minutes(1)))
struct ServingTests {
    /// A listener that serves while the body runs.
    private func withServer(
        logger: Logger? = nil, _ serve: @escaping @Sendable (QUICConnection) async throws -> Void,
        body: (QUICListener, QUICClient, any EventLoop) async throws -> Void
    ) async throws {
        var configuration = try serverConfiguration()
        if let logger { configuration.logger = logger }
        let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: configuration, group: serverGroup)
        let client = QUICClient()
        let serving = Task { try await listener.serve(failureCode: 9, serve) }
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(listener, client, clientGroup.next()))
        } catch {
            outcome = .failure(error)
        }
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await serving.value
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
        try outcome.get()
    }

    private func visit<Result: Sendable>(
        _ listener: QUICListener, _ client: QUICClient, _ loop: any EventLoop,
        _ body: (QUICConnection) async throws -> Result
    ) async throws -> Result {
        try await client.withConnection(
            host: "127.0.0.1", port: listener.port, configuration: clientConfiguration(), on: loop, failureCode: 8, body
        )
    }

    @Test("Bodies run on the connection's loop, and a connection is closed when its body ends")
    func bodiesRunOnTheLoop() async throws {
        let reasons = Mailbox<QUICCloseReason>(limit: 4, policy: .refuse)
        try await withServer { connection in
            let loop = connection.executor.eventLoop
            try await connection.serveStreams { stream in
                #expect(loop.inEventLoop)
                for try await bytes in stream { try await stream.write(bytes) }
                #expect(loop.inEventLoop)
                try await stream.finish()
            }
            reasons.put(try await connection.closed())
        } body: { listener, client, loop in
            let answer = try await visit(listener, client, loop) { connection in
                #expect(loop.inEventLoop)
                let stream = try await connection.openStream()
                try await stream.send(pattern(100_000))
                let answer = try await stream.collect()
                #expect(loop.inEventLoop)
                return answer
            }
            #expect(answer == pattern(100_000))
            #expect(try await reasons.next() == .peerApplication(code: 0, reason: ""))
            await #expect(throws: Broken.self) {
                try await visit(listener, client, loop) { _ in throw Broken() }
            }
            #expect(try await reasons.next() == .peerApplication(code: 8, reason: ""))
        }
    }

    @Test("A body that throws ends its own stream or connection, with the code, and no other")
    func failuresEndAlone() async throws {
        let lines = RecordedLines()
        try await withServer(logger: lines.logger) { connection in
            try await connection.serveStreams(failureCode: 7) { stream in
                let request = try await stream.collect()
                if request == [0] { throw Broken() }
                try await stream.send(request)
            }
        } body: { listener, client, loop in
            try await visit(listener, client, loop) { connection in
                let bad = try await connection.openStream()
                try await bad.send([0])
                let error = await #expect(throws: QUICTransportError.self) { _ = try await bad.collect() }
                #expect(error?.code == .streamReset)
                #expect(error?.applicationCode == 7)
                let good = try await connection.openStream()
                try await good.send([1, 2])
                #expect(try await good.collect() == [1, 2])
            }
        }
        let ofStream = try #require(lines.lines.first { $0.message == "the body that served a stream failed" })
        #expect(ofStream.level == .debug && ofStream.metadata["error"] == "Broken()")
        #expect(ofStream.metadata["quic.role"] == "server" && ofStream.metadata["quic.connection"] != nil)
        try await withServer(logger: lines.logger) { connection in
            var streams = connection.inboundStreams.makeAsyncIterator()
            _ = try await streams.next()
            throw Broken()
        } body: { listener, client, loop in
            try await visit(listener, client, loop) { connection in
                let stream = try await connection.openStream()
                try await stream.write(ByteBuffer(string: "x"))
                #expect(try await connection.closed() == .peerApplication(code: 9, reason: ""))
            }
        }
        let ofConnection = lines.lines.filter { $0.message == "the body that served a connection failed" }
        #expect(ofConnection.count == 1 && ofConnection.first?.metadata["quic.connection"] != nil)
    }

    @Test("What a body finished is sent, though it throws afterwards") func whatABodyFinishedIsSent() async throws {
        try await withServer { connection in
            try await connection.serveStreams(failureCode: 7) { stream in
                try await stream.write(ByteBuffer(bytes: pattern(1 << 20)))
                try await stream.finish()
                throw Broken()
            }
        } body: { listener, client, loop in
            try await visit(listener, client, loop) { connection in
                let stream = try await connection.openStream()
                try await stream.write(ByteBuffer(string: "x"))
                #expect(try await stream.collect() == pattern(1 << 20))
                // What it hadn't read to the end is stopped.
                let error = await #expect(throws: QUICTransportError.self) {
                    while true { try await stream.write(ByteBuffer(repeating: 0, count: 100)) }
                }
                #expect(error?.code == .stopSending && error?.applicationCode == 7)
            }
        }
    }

    @Test("A peer that resets what it opens starts no more bodies than it may have streams")
    func resetsStartNoMoreBodies() async throws {
        let running = RunningBodies()
        let gate = Mailbox<Void>(limit: 1, policy: .refuse)
        let configuration = try serverConfiguration {
            $0.maxBidirectionalStreams = 2
            $0.maxUnidirectionalStreams = 3
        }
        try await withPair(configuration: configuration) { connection in
            try await connection.serveStreams { stream in
                running.begin()
                defer { running.end() }
                if stream.id.isBidirectional {
                    try await stream.send(try await stream.collect())
                } else {
                    _ = try await gate.next()
                }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            for _ in 0..<40 {
                let stream = try await connection.openStream(bidirectional: false)
                try await stream.write(ByteBuffer(string: "x"))
                stream.reset(code: 1)
            }
            try await running.reach(5)
            #expect(running.most == 5)
            gate.finish()
            // Those that waited are served first; until then a stream may find no room.
            var answer: [UInt8]?
            while answer == nil {
                let stream = try await connection.openStream()
                do {
                    try await stream.send([1])
                    answer = try await stream.collect()
                } catch let error as QUICTransportError where error.applicationCode == 0 {
                    continue
                }
            }
            #expect(answer == [1])
            #expect(running.most == 5)
        }
    }

    @Test("A write that is cancelled behind another one leaves that alone")
    func aCancelledSecondWriteLeavesTheFirstAlone() async throws {
        let go = Mailbox<Void>(limit: 1, policy: .refuse)
        let received = Mailbox<[UInt8]>(limit: 1, policy: .refuse)
        let configuration = try serverConfiguration { $0.streamWindow = 1000 }
        try await withPair(configuration: configuration) { connection in
            var streams = connection.inboundStreams.makeAsyncIterator()
            guard let stream = try await streams.next() else { return }
            _ = try await go.next()
            received.put(try await stream.collect())
        } body: { client, listener, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.streamSendBuffer = 16 << 10 }, on: loop)
            let stream = try await connection.openStream(bidirectional: false)
            let bytes = pattern(100_000)
            let first = Task.immediate { try await stream.write(ByteBuffer(bytes: bytes)) }
            // Its turn on the loop comes once it is cancelled.
            let held = DispatchSemaphore(value: 0)
            loop.execute { held.wait() }
            let second = Task.immediate { try await stream.write(ByteBuffer(bytes: bytes)) }
            second.cancel()
            held.signal()
            await #expect(throws: CancellationError.self) { try await second.value }
            go.put(())
            try await first.value
            try await stream.finish()
            #expect(try await received.next() == bytes)
        }
    }

    @Test("Bytes written from any thread arrive in order, with a buffer that is always full")
    func writesStayInOrder() async throws {
        try await withServer { connection in
            try await connection.serveStreams { stream in
                for try await bytes in stream { try await stream.write(bytes) }
                try await stream.finish()
            }
        } body: { listener, client, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.streamSendBuffer = 2000 }, on: loop)
            let stream = try await connection.openStream()
            let sent = pattern(300_000)
            async let received = stream.collect()
            var random = SystemRandomNumberGenerator()
            var rest = sent[...]
            var onLoop = false
            while !rest.isEmpty {
                let part = rest.prefix(Int(random.next() % 1500) + 1)
                rest = rest.dropFirst(part.count)
                // The same task writes from the pool and on the loop: what it left for the loop goes first.
                onLoop.toggle()
                try await withTaskExecutorPreference(onLoop ? connection.executor : nil) {
                    try await stream.write(ByteBuffer(bytes: part))
                }
            }
            try await stream.finish()
            #expect(try await received == sent)
            let error = await #expect(throws: QUICTransportError.self) {
                try await stream.write(ByteBuffer(string: "late"))
            }
            #expect(error?.code == .streamState)
        }
    }

    @Test("A read that was cancelled before anything came makes room for another")
    func aCancelledReadMakesRoom() async throws {
        let go = Mailbox<Void>(limit: 1, policy: .refuse)
        try await withServer { connection in
            var streams = connection.inboundStreams.makeAsyncIterator()
            guard let stream = try await streams.next() else { return }
            _ = try await go.next()
            try await stream.send([5])
            _ = try await connection.closed()
        } body: { listener, client, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "x"))
            for _ in 0..<3 {
                let reading = Task { try await stream.read() }
                reading.cancel()
                await #expect(throws: CancellationError.self) { _ = try await reading.value }
            }
            async let next = stream.read()
            go.put(())
            #expect(try await next == ByteBuffer(bytes: [5]))
            connection.close()
            await #expect(throws: QUICTransportError.self) {
                while true { try await stream.write(ByteBuffer(repeating: 0, count: 100)) }
            }
        }
    }
}
