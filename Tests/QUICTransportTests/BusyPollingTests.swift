import NIOCore
import NIOPosix
import Testing

@testable import QUICTransport

/// Looking into the sockets instead of sleeping.
@Suite("Busy polling", .timeLimit(.minutes(1)))
struct BusyPollingTests {
    /// A loop whose packets come so many nanoseconds after it has fallen asleep.
    private final class SimulatedLoop {
        private var polling: BusyPolling
        var now: UInt64 = 1_000_000_000

        init(limit: UInt64) {
            polling = BusyPolling(limit: limit)
            _ = polling.rested(at: now)
        }

        /// - Returns: whether the loop looks from now on.
        func packet(after wait: UInt64) -> Bool {
            now += wait
            polling.woke(at: now)
            now += 10_000
            return polling.rested(at: now)
        }

        /// - Returns: whether it looks once more.
        func looked(found: Bool, at now: UInt64) -> Bool {
            let goesOn = polling.looked(found: found, at: now)
            #expect(goesOn == polling.isPolling)
            return goesOn
        }
    }

    private static let limit: UInt64 = 50_000
    private static let soon: UInt64 = 60_000
    private static let late: UInt64 = 90_000

    private static func pollingLoop() -> SimulatedLoop {
        let loop = SimulatedLoop(limit: limit)
        for _ in 0..<BusyPolling.proofs { _ = loop.packet(after: soon) }
        return loop
    }

    /// It looks behind the eighth, and not before.
    private static func expectEightSoonPackets(
        before loop: SimulatedLoop, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        for _ in 1..<BusyPolling.proofs {
            #expect(!loop.packet(after: soon), sourceLocation: sourceLocation)
        }
        #expect(loop.packet(after: soon), sourceLocation: sourceLocation)
    }

    @Test("the loop looks once packets came soon eight times in a row")
    func theLoopLooksOncePacketsCameSoonEightTimesInARow() {
        let loop = SimulatedLoop(limit: Self.limit)
        Self.expectEightSoonPackets(before: loop)
    }

    @Test("one packet that comes late makes it count anew")
    func onePacketThatComesLateMakesItCountAnew() {
        let loop = SimulatedLoop(limit: Self.limit)
        for _ in 1..<BusyPolling.proofs { _ = loop.packet(after: Self.soon) }
        #expect(!loop.packet(after: Self.late))
        Self.expectEightSoonPackets(before: loop)
    }

    @Test("it sleeps when nothing came in time, and counts anew")
    func itSleepsWhenNothingCameInTimeAndCountsAnew() {
        let loop = Self.pollingLoop()
        #expect(loop.looked(found: false, at: loop.now + Self.limit - 1))
        #expect(!loop.looked(found: false, at: loop.now + Self.limit))
        Self.expectEightSoonPackets(before: loop)
    }

    @Test("each packet found gives it the whole time again, until the turn is over")
    func eachPacketFoundGivesItTheWholeTimeAgainUntilTheTurnIsOver() {
        let loop = Self.pollingLoop()
        let began = loop.now
        while loop.now + 30_000 < began + BusyPolling.turn {
            loop.now += 30_000
            #expect(loop.looked(found: true, at: loop.now))
        }
        #expect(!loop.looked(found: true, at: began + BusyPolling.turn))
        // That was no miss.
        loop.now = began + BusyPolling.turn
        #expect(loop.packet(after: Self.soon))
    }

    @Test("it never looks where it shall not")
    func itNeverLooksWhereItShallNot() {
        let loop = SimulatedLoop(limit: 0)
        for _ in 0..<(4 * BusyPolling.proofs) {
            #expect(!loop.packet(after: 0))
        }
    }

    @Test("the time for it is bounded")
    func theTimeForItIsBounded() {
        /// Whether a loop that has proof goes on behind a look in vain, after so many nanoseconds.
        func goesOn(_ busyPoll: Duration, after wait: UInt64) -> Bool {
            var options = QUICSocketOptions()
            options.busyPoll = busyPoll
            var polling = options.busyPolling
            for number in 0...UInt64(BusyPolling.proofs) {
                polling.woke(at: 1000 + number)
                _ = polling.rested(at: 1000 + number)
            }
            return polling.isPolling && polling.looked(found: false, at: 1000 + UInt64(BusyPolling.proofs) + wait)
        }
        #expect(goesOn(QUICSocketOptions().busyPoll, after: 49_999))
        #expect(!goesOn(QUICSocketOptions().busyPoll, after: 50_000))
        #expect(goesOn(.seconds(2), after: BusyPolling.turn - 1))
        #expect(!goesOn(.seconds(2), after: BusyPolling.turn))
        #expect(!goesOn(.seconds(-1), after: 0))
    }

    // MARK: On sockets

    /// - Parameter busyPoll: how long the server looks; a thousand times longer, as are the times within which packets come soon.
    private static func configuration(_ busyPoll: Duration) throws -> QUICServerConfiguration {
        var configuration = try serverConfiguration()
        configuration.sockets.busyPoll = busyPoll
        configuration.sockets.busyPollScale = 1000
        return configuration
    }

    /// Bytes there and back, one behind the other.
    private static func exchange(_ count: Int, on stream: QUICStream) async throws {
        for number in 0..<count {
            try await stream.write(ByteBuffer(integer: UInt8(truncatingIfNeeded: number)))
            let answer = try await stream.read()
            #expect(answer?.readableBytes == 1)
        }
    }

    @Test("a server finds what a peer that waits for each answer sends, and serves on")
    func aServerFindsWhatAPeerThatWaitsForEachAnswerSendsAndServesOn() async throws {
        try await withPair(configuration: Self.configuration(.microseconds(500)), serve: echo) {
            client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await Self.exchange(100, on: stream)
            #expect(await listener.counters().sockets.readsWithoutSleep > 0)
            // Another connection is served meanwhile.
            let other = try await client.connect(to: listener, on: loop)
            try await other.roundTrip()
            try await Self.exchange(10, on: stream)
        }
    }

    @Test("a server that shall not look does not")
    func aServerThatShallNotLookDoesNot() async throws {
        try await withPair(configuration: Self.configuration(.zero), serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await Self.exchange(200, on: connection.openStream())
            #expect(await listener.counters().sockets.readsWithoutSleep == 0)
        }
    }

    /// Answers each read with a byte.
    private final class AnsweringHandler: QUICConnectionHandler {
        func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
            guard case .streamReadable(let stream) = event else { return }
            var answer = ByteBuffer(integer: UInt8(1))
            _ = try? connection.read(stream) { $0.count }
            _ = try? connection.write(&answer, to: stream)
        }

        func batchEnded(on connection: QUICLoopConnection) {}
    }

    /// An event loop that ends runs until no task is left.
    @Test("an event loop ends while it looks")
    func anEventLoopEndsWhileItLooks() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try await QUICServer.bind(
            addresses: [loopback()], configuration: Self.configuration(.microseconds(500)), group: group
        ) { _ in AnsweringHandler() }
        let client = QUICClient()
        let connection = try await client.connect(
            host: "127.0.0.1", port: #require(server.localAddresses.first?.port), configuration: clientConfiguration(),
            on: MultiThreadedEventLoopGroup.singleton.next())
        try await Self.exchange(100, on: connection.openStream())
        #expect(await server.counters().sockets.readsWithoutSleep > 0)
        try await group.shutdownGracefully()
        await client.shutdownGracefully(timeout: .zero)
    }

    @Test("packets of no connection don't keep it from its sleep")
    func packetsOfNoConnectionDontKeepItFromItsSleep() async throws {
        try await withPair(configuration: Self.configuration(.microseconds(500)), serve: echo) { _, listener, _ in
            let channel = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .bind(to: loopback()).get()
            let address = try #require(listener.localAddresses.first)
            for count in 1...UInt64(4 * BusyPolling.proofs) {
                let garbage = ByteBuffer(repeating: 0x41, count: 60)
                try await channel.writeAndFlush(AddressedEnvelope(remoteAddress: address, data: garbage))
                while await listener.counters().sockets.messagesReceived < count { try Task.checkCancellation() }
            }
            let counters = await listener.counters()
            #expect(counters.engine.unknownConnectionIDs + counters.engine.garbageDatagrams >= 32)
            #expect(counters.sockets.readsWithoutSleep == 0)
            try await channel.close()
        }
    }
}
