import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

@Suite("Streams over loopback", .timeLimit(.minutes(1)))
struct StreamTests {
    @Test("Megabytes go both ways at once and come back byte for byte")
    func echoBulk() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            let sent = pattern(4 << 20)
            async let received = stream.collect()
            try await stream.send(sent)
            #expect(try await received == sent)
            let counters = await listener.counters()
            #expect(counters.sockets.segmentedMessagesSent > 0, "bulk leaves in GSO runs")
            #expect(counters.sockets.messagesSent < counters.sockets.datagramsSent)
            #expect(counters.engine.handshakesCompleted == 1)
        }
    }

    @Test("A task on the connection's loop reads and writes there, and sees the end")
    func taskOnLoop() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await withTaskExecutorPreference(connection.executor) {
                let stream = try await connection.openStream()
                var sent: [UInt8] = []
                var received: [UInt8] = []
                for round in 0..<50 {
                    let piece = [UInt8](repeating: UInt8(round), count: 100 + round)
                    try await stream.write(ByteBuffer(bytes: piece))
                    sent += piece
                    while received.count < sent.count, let bytes = try await stream.read() {
                        received += Array(bytes.readableBytesView)
                    }
                    #expect(loop.inEventLoop)
                }
                #expect(received == sent)
                try await stream.finish()
                while let more = try await stream.read() { #expect(more.readableBytes == 0) }
                #expect(loop.inEventLoop)
            }
        }
    }

    @Test("A reader that doesn't read holds the writer up, and nothing is lost when it goes on")
    func backPressure() async throws {
        let release = Mailbox<Void>(limit: 1, policy: .refuse)
        let received = Mailbox<[UInt8]>(limit: 1, policy: .refuse)
        let configuration = try serverConfiguration {
            $0.streamWindow = 32 << 10
            $0.connectionWindow = 64 << 10
        }
        try await withPair(configuration: configuration) { connection in
            try await withThrowingDiscardingTaskGroup { group in
                for try await stream in connection.inboundStreams {
                    group.addTask {
                        if stream.id.isBidirectional { return try await stream.send(try await stream.collect()) }
                        _ = try await release.next()
                        received.put(try await stream.collect())
                    }
                }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.streamSendBuffer = 64 << 10 }, on: loop)
            let stream = try await connection.openStream(bidirectional: false)
            let sent = pattern(1 << 20)
            let done = Mutex(false)
            let writing = Task {
                try await stream.send(sent)
                done.withLock { $0 = true }
            }
            // In so many round trips all of it would be gone, were it not for the peer's window.
            for _ in 0..<40 { try await connection.roundTrip() }
            #expect(done.withLock { $0 } == false)
            let gone = try #require(await connection.statistics()?.bytesSent)
            #expect(gone < 512 << 10, "the peer's window bounds what was sent")
            release.put(())
            try await writing.value
            #expect(try await received.next() == sent)
        }
    }

    @Test("A delivery is told when the peer has everything and the end, and not before", arguments: [0, 1, 300_000])
    func delivered(count: Int) async throws {
        let received = Mailbox<[UInt8]>(limit: 1, policy: .refuse)
        try await withPair { connection in
            for try await stream in connection.inboundStreams { received.put(try await stream.collect()) }
        } body: { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port))
            let connection = try await client.connect(
                host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(), on: loop)
            let stream = try await connection.openStream(bidirectional: false)
            let early = Task { try await stream.delivered() }
            try await stream.write(ByteBuffer(bytes: pattern(count)))
            // The end goes by itself, or with bytes.
            if count == 1 {
                while try await connection.deliverDatagram(ByteBuffer(bytes: [0])) != .acknowledged {}
            }
            try await relay.shutOut(host: "127.0.0.1")
            let before = try #require(await connection.statistics()?.packetsSent)
            try await stream.finish()
            let isDone = Mutex(false)
            let waiting = Task {
                try await stream.delivered()
                isDone.withLock { $0 = true }
            }
            while try #require(await connection.statistics()?.packetsSent) == before { await Task.yield() }
            for _ in 0..<100 { _ = await connection.statistics() }
            #expect(!isDone.withLock { $0 })
            try await relay.shutOut(host: nil)
            try await waiting.value
            try await early.value
            try await stream.delivered()
            #expect(try await received.next() == pattern(count))
            await relay.close()
        }
    }

    @Test("A delivery that fails says why: stopped by the peer, reset here, or the connection closed")
    func deliveryThatFails() async throws {
        let configuration = try serverConfiguration { $0.streamWindow = 16 << 10 }
        try await withPair(configuration: configuration) { connection in
            var streams = connection.inboundStreams.makeAsyncIterator()
            guard let stream = try await streams.next() else { return }
            stream.stopSending(code: 5)
            _ = try await connection.closed()
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            func failure(_ act: (QUICStream) -> Void) async throws -> QUICTransportError? {
                let stream = try await connection.openStream()
                // The peer may stop it before all of it is written.
                do {
                    try await stream.write(ByteBuffer(bytes: pattern(100_000)))
                    try await stream.finish()
                } catch let error as QUICTransportError where error.code == .stopSending {}
                let delivered = Task { try await stream.delivered() }
                act(stream)
                return await #expect(throws: QUICTransportError.self) { try await delivered.value }
            }
            let stopped = try await failure { _ in }
            #expect(stopped?.code == .stopSending && stopped?.applicationCode == 5)
            #expect(try await failure { $0.reset(code: 3) }?.code == .streamState)
            let stream = try await connection.openStream()
            let waiting = Task { try await stream.delivered() }
            _ = await connection.statistics()
            waiting.cancel()
            await #expect(throws: CancellationError.self) { try await waiting.value }
            #expect(try await failure { $0.connection.close() }?.code == .connectionClosed)
        }
    }

    @Test("A connection knows its side, its number and its addresses")
    func facts() async throws {
        let seen = Mailbox<(Bool, SocketAddress?, SocketAddress?)>(limit: 1, policy: .refuse)
        try await withPair { connection in
            seen.put((connection.isServer, await connection.remoteAddress(), await connection.localAddress()))
            try await echo(connection)
        } body: { client, listener, loop in
            let first = try await client.connect(to: listener, on: loop)
            let second = try await client.connect(to: listener, on: loop)
            #expect(!first.isServer && first.id != second.id)
            let (server, remote, local) = try #require(try await seen.next())
            #expect(server && remote?.ipAddress == "127.0.0.1")
            #expect(await first.remoteAddress() == listener.localAddresses.first)
            #expect(local == listener.localAddresses.first)
            let mine = [await first.localAddress(), await second.localAddress()]
            #expect(mine.contains(remote))
            first.close()
            _ = try await first.closed()
            #expect(await first.remoteAddress() == nil)
        }
    }

    @Test("Many streams at a time, more than the peer allows at once")
    func manyStreams() async throws {
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 16 }
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<200 {
                    group.addTask {
                        let stream = try await connection.openStream()
                        let sent = pattern(1000 + number, seed: UInt64(number))
                        try await stream.send(sent)
                        return try await stream.collect() == sent
                    }
                }
                for try await same in group { #expect(same) }
            }
        }
    }

    @Test("A server opens streams too")
    func serverStreams() async throws {
        try await withPair { connection in
            let stream = try await connection.openStream(bidirectional: false)
            try await stream.send(Array("hello".utf8))
            _ = try await connection.closed()
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            var streams = connection.inboundStreams.makeAsyncIterator()
            let stream = try #require(try await streams.next())
            #expect(!stream.id.isBidirectional)
            #expect(try await stream.collect() == Array("hello".utf8))
        }
    }

    @Test("Reset and stop-sending carry their codes to the other side")
    func resetAndStop() async throws {
        let seen = Mailbox<UInt64>(limit: 4, policy: .refuse)
        try await withPair { connection in
            for try await stream in connection.inboundStreams {
                do {
                    _ = try await stream.read()
                    try await stream.write(ByteBuffer(string: "go"))
                    _ = try await stream.collect()
                } catch let error as QUICTransportError {
                    #expect(error.code == .streamReset)
                    seen.put(error.applicationCode ?? 0)
                }
                stream.stopSending(code: 9)
                stream.reset(code: 77)
                _ = try await connection.closed()
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "half"))
            #expect(try await stream.read() == ByteBuffer(string: "go"))
            stream.reset(code: 42)
            #expect(try await seen.next() == 42)
            let error = await #expect(throws: QUICTransportError.self) { _ = try await stream.collect() }
            #expect(error?.code == .streamReset)
            #expect(error?.applicationCode == 77)
        }
    }

    @Test("A peer that stops reading fails the writer with its code")
    func stopSending() async throws {
        try await withPair { connection in
            for try await stream in connection.inboundStreams {
                _ = try await stream.read()
                stream.stopSending(code: 5)
                _ = try await connection.closed()
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            let error = await #expect(throws: QUICTransportError.self) {
                for _ in 0..<1000 { try await stream.write(ByteBuffer(bytes: pattern(64 << 10))) }
            }
            #expect(error?.code == .stopSending)
            #expect(error?.applicationCode == 5)
        }
    }

    @Test(
        "A small part of a large buffer doesn't keep all of it, most of a buffer isn't copied",
        arguments: [false, true])
    func partOfABuffer(isMost: Bool) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            // Nothing is acknowledged meanwhile: all happens in one turn of the loop.
            let isKept = try await connection.call { state in
                let connection = try #require(state.connection)
                let stream = try #require(try connection.openStream(bidirectional: true))
                var whole = ByteBuffer(repeating: 7, count: isMost ? 16 << 10 : 1 << 20)
                let place = whole.withUnsafeReadableBytes { $0.baseAddress }
                var part = try #require(whole.getSlice(at: 0, length: 16 << 10))
                #expect(try connection.write(&part, to: stream) == 16 << 10)
                part = ByteBuffer()
                // A change moves what somebody else refers to.
                whole.setInteger(1, at: 0, as: UInt8.self)
                return whole.withUnsafeReadableBytes { $0.baseAddress } != place
            }
            #expect(isKept == isMost)
        }
    }

    @Test("An urgent stream overtakes one that was written before", arguments: [false, true])
    func priorities(changed: Bool) async throws {
        let amount = 1 << 20
        let ends = Mailbox<QUICStreamID>(limit: 2, policy: .refuse)
        let configuration = try serverConfiguration {
            $0.streamWindow = UInt64(2 * amount)
            $0.connectionWindow = UInt64(4 * amount)
        }
        try await withPair(configuration: configuration) { connection in
            // On the loop, where tasks go on in the order of events.
            try await withThrowingDiscardingTaskGroup { group in
                for try await stream in connection.inboundStreams {
                    group.addTask(executorPreference: connection.executor) {
                        _ = try await stream.collect()
                        ends.put(stream.id)
                    }
                }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.streamSendBuffer = 2 * amount }, on: loop)
            try await withTaskExecutorPreference(connection.executor) {
                let first = try await connection.openStream(bidirectional: false)
                let second = try await connection.openStream(
                    bidirectional: false, priority: changed ? .standard : StreamPriority(urgency: 1))
                // All in one turn of the loop: nothing of the first has left when the second is written.
                try await first.write(ByteBuffer(bytes: pattern(amount)))
                try await second.write(ByteBuffer(bytes: pattern(amount)))
                if changed { second.setPriority(StreamPriority(urgency: 0, isIncremental: false)) }
                try await first.finish()
                try await second.finish()
                #expect(try await ends.next() == second.id)
                #expect(try await ends.next() == first.id)
            }
        }
    }

    @Test("What was written and finished arrives although the stream was let go of while the buffer was full")
    func finishedAndLetGo() async throws {
        let configuration = try serverConfiguration {
            $0.connectionWindow = 32 << 10
            $0.streamWindow = 32 << 10
        }
        let gate = Mailbox<Void>(limit: 1, policy: .refuse)
        let ends = Mailbox<Int>(limit: 8, policy: .refuse)
        try await withPair(configuration: configuration) { connection in
            _ = try await gate.next()
            try await withThrowingDiscardingTaskGroup { group in
                for try await stream in connection.inboundStreams {
                    group.addTask { ends.put(try await stream.collect().count) }
                }
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(
                to: listener,
                clientConfiguration {
                    $0.connectionSendBuffer = 64 << 10
                    $0.streamSendBuffer = 64 << 10
                }, on: loop)
            var streams: [QUICStream] = []
            for _ in 0..<8 { streams.append(try await connection.openStream(bidirectional: false)) }
            for stream in streams { try await stream.send([UInt8](repeating: 7, count: 16 << 10)) }
            streams.removeAll()
            // The loop has let go of them before it answers this, but for those that have bytes left.
            #expect(try await connection.call { $0.streamCount } > 0)
            gate.put(())
            for _ in 0..<8 { #expect(try await ends.next() == 16 << 10) }
            #expect(try await connection.call { $0.streamCount } == 0)
        }
    }

    @Test("A side that is finished still gets what the other has to say")
    func halfClose() async throws {
        try await withPair { connection in
            for try await stream in connection.inboundStreams {
                // Nothing is said before the other side is through.
                let heard = try await stream.collect()
                for piece in 0..<50 {
                    try await stream.write(ByteBuffer(bytes: pattern(10_000, seed: UInt64(piece + 1))))
                }
                try await stream.send(heard)
            }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.send([7, 8, 9])
            let error = await #expect(throws: QUICTransportError.self) {
                try await stream.write(ByteBuffer(string: "more"))
            }
            #expect(error?.code == .streamState)
            let answer = try await stream.collect()
            var expected: [UInt8] = []
            for piece in 0..<50 { expected += pattern(10_000, seed: UInt64(piece + 1)) }
            expected += [7, 8, 9]
            #expect(answer == expected)
        }
    }
}
