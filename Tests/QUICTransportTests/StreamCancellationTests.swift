import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Calls on streams that are cancelled", .timeLimit(.minutes(1)))
struct StreamCancellationTests {
    @Test("A cancelled write resets its stream; a cancelled read loses nothing")
    func cancellation() async throws {
        let configuration = try serverConfiguration { $0.streamWindow = 16 << 10 }
        try await withPair(configuration: configuration) { connection in
            for try await stream in connection.inboundStreams {
                try await stream.write(ByteBuffer(string: "go"))
                _ = try await connection.closed()
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.streamSendBuffer = 16 << 10 }, on: loop)
            let stream = try await connection.openStream()
            let writing = Task { try await stream.write(ByteBuffer(bytes: pattern(1 << 20))) }
            let reading = Task { try await stream.read() }
            reading.cancel()
            let early = try? await reading.value
            // A write that the send buffer didn't take whole is suspended.
            while await connection.statistics()?.sendBufferBytes == 0 { await Task.yield() }
            writing.cancel()
            await #expect(throws: CancellationError.self) { try await writing.value }
            let error = await #expect(throws: QUICTransportError.self) {
                try await stream.write(ByteBuffer(string: "more"))
            }
            #expect(error?.code == .streamState)
            // The read that was cancelled before bytes came left them for this one.
            let first = early ?? nil
            #expect(try await (first == nil ? stream.read() : first) == ByteBuffer(string: "go"))
        }
    }

    @Test("A write that was cancelled before the loop saw it sends nothing and resets its stream")
    func cancelledBeforeItSuspends() async throws {
        let ends = Mailbox<Result<[UInt8], QUICTransportError>>(limit: 1, policy: .refuse)
        try await withPair { connection in
            for try await stream in connection.inboundStreams {
                do {
                    ends.put(.success(try await stream.collect()))
                } catch let error as QUICTransportError {
                    ends.put(.failure(error))
                }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream(bidirectional: false)
            let waiter = Waiter<Void>()
            let writing = Task {
                withUnsafeCurrentTask { $0?.cancel() }
                try await waiter.wait { _ in }
            }
            await #expect(throws: CancellationError.self) { try await writing.value }
            try await connection.call { [id = stream.id] in $0.write(ByteBuffer(bytes: [1, 2, 3]), to: id, waiter) }
            let error = await #expect(throws: QUICTransportError.self) { try await stream.finish() }
            #expect(error?.code == .streamState)
            let end = try #require(try await ends.next())
            #expect(throws: QUICTransportError.self) { try end.get() }
            if case .failure(let error) = end { #expect(error.applicationCode == QUICStream.cancellationCode) }
        }
    }

    @Test("A cancelled read lets another wait in its place")
    func readAfterCancelledRead() async throws {
        try await withPair { connection in
            for try await stream in connection.inboundStreams {
                // Answers at the second byte only.
                var count = 0
                while count < 2, let bytes = try await stream.read() { count += bytes.readableBytes }
                try await stream.write(ByteBuffer(string: "here"))
                _ = try await connection.closed()
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "1"))
            for _ in 0..<3 {
                let reading = Task { try await stream.read() }
                // It waits: the loop has seen it when it answers this.
                await Task.yield()
                _ = await connection.statistics()
                reading.cancel()
                await #expect(throws: CancellationError.self) { _ = try await reading.value }
            }
            async let answer = stream.read()
            _ = await connection.statistics()
            try await connection.roundTrips(on: stream)
            #expect(try await answer == ByteBuffer(string: "here"))
        }
    }

    @Test("Those who wait for a stream get theirs in the order in which they asked, each kind by itself")
    func openInOrder() async throws {
        let configuration = try serverConfiguration {
            $0.maxBidirectionalStreams = 1
            $0.maxUnidirectionalStreams = 1
        }
        try await withPair(configuration: configuration) { connection in
            for try await stream in connection.inboundStreams {
                _ = try await stream.collect()
                if stream.id.isBidirectional { try await stream.finish() }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let kinds = [true, false]
            var held: [QUICStream] = []
            for kind in kinds { held.append(try await connection.openStream(bidirectional: kind)) }
            var asking: [Task<QUICStreamID, any Error>] = []
            for number in 0..<12 {
                asking.append(
                    Task {
                        let stream = try await connection.openStream(bidirectional: kinds[number % 2])
                        try await stream.send([1])
                        if stream.id.isBidirectional { _ = try await stream.collect() }
                        return stream.id
                    })
                while await connection.waiterCount() <= number { await Task.yield() }
            }
            // One of each kind is gone before its turn.
            for number in 2...3 { asking[number].cancel() }
            for stream in held { try await stream.finish() }
            var ids: [QUICStreamID] = []
            for (number, task) in asking.enumerated() where !(2...3).contains(number) {
                ids.append(try await task.value)
            }
            for kind in kinds {
                let ordinals = ids.filter { $0.isBidirectional == kind }.map(\.ordinal)
                #expect(ordinals == [1, 2, 3, 4, 5])
            }
        }
    }

    @Test("An open that is cancelled takes no stream, and nothing is left of those who wait no more")
    func cancelledOpen() async throws {
        let streams = Mailbox<QUICStreamID>(limit: 100, policy: .refuse)
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 1 }
        try await withPair(configuration: configuration) { connection in
            for try await stream in connection.inboundStreams {
                streams.put(stream.id)
                do { _ = try await stream.collect() } catch {}
                try? await stream.finish()
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let first = try await connection.openStream()
            try await first.write(ByteBuffer(string: "1"))
            var waiting: [Task<Void, any Error>] = []
            for _ in 0..<20 { waiting.append(Task { _ = try await connection.openStream() }) }
            for _ in 0..<20 { waiting.append(Task { _ = try await connection.closed() }) }
            while await connection.waiterCount() < 40 { await Task.yield() }
            for task in waiting { task.cancel() }
            for task in waiting { await #expect(throws: CancellationError.self) { try await task.value } }
            #expect(await connection.waiterCount() == 0)
            try await first.finish()
            #expect(try await first.collect().isEmpty)
            let second = try await connection.openStream()
            try await second.send([2])
            #expect(try await second.collect().isEmpty)
            #expect(try await streams.next() == first.id)
            #expect(try await streams.next() == second.id)
            #expect(second.id.rawValue == first.id.rawValue + 4, "no stream was opened in between")
        }
    }
}

extension QUICConnection {
    /// Tasks that wait for a stream, the handshake or the end.
    fileprivate func waiterCount() async -> Int { (try? await call { $0.waiterCount }) ?? 0 }

    /// Writes until the peer has read twice.
    fileprivate func roundTrips(on stream: QUICStream) async throws {
        for _ in 0..<20 {
            try await stream.write(ByteBuffer(string: "2"))
            _ = await statistics()
        }
    }
}
