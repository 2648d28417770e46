import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let eve = identifier { try UserID("eve") }

/// What an operator sets is what sessions and loops go by.
@Suite(.timeLimit(.minutes(1))) struct SessionLimitTests {
    @Test func whatIsSetIsWhatSessionsGoBy() async throws {
        var limits = ServerLimits()
        limits.maximumPayload = 700_001
        limits.channelWindow = 99_001
        limits.unacknowledgedBytesPerSession = 345_001
        limits.maximumUnacknowledged = 701
        limits.minimumHeartbeat = .milliseconds(7_001)
        limits.idleTimeout = .milliseconds(70_001)
        limits.connectTimeout = .milliseconds(6_001)
        limits.backgroundHold = .milliseconds(31_001)
        limits.lowPowerHold = .milliseconds(301_001)
        limits.lagNoticeTime = .milliseconds(4_001)
        limits.arrivingPayloadBytes = 9_000_001
        limits.arrivingPayloadBytesPerUser = 8_000_001
        limits.partTimeout = .milliseconds(59_001)
        limits.minimumPartRate = 4_001
        limits.compressesCatchUps = false
        limits.presencePerSession = 901
        try await withServer(limits: limits) { server in
            let session = server.runtime.core.sessionConfiguration
            #expect(
                session.limits
                    == SessionLimits(
                        maximumPayload: 700_001, channelWindow: 99_001, maximumUnacknowledged: 701,
                        minimumHeartbeat: 7_001, idleTimeout: 70_001))
            #expect(session.deliveryBudget == 345_001)
            #expect(session.connectTimeout == .milliseconds(6_001))
            #expect(session.backgroundHold == .milliseconds(31_001))
            #expect(session.lowPowerHold == .milliseconds(301_001))
            #expect(session.lagNoticeTime == .milliseconds(4_001))
            #expect(session.payloadBudget.limit == 9_000_001)
            #expect(session.payloadBudget.limitPerUser == 8_000_001)
            #expect(session.partTimeout == .milliseconds(59_001))
            #expect(session.minimumPartRate == 4_001)
            #expect(!session.compresses)
            #expect(session.maximumPresenceUsers == 901)
            // And a client is told.
            let phone = try await server.device("ann")
            #expect(try await phone.connect().limits == session.limits)
        }
    }

    @Test(arguments: [TimeAmount.seconds(5), .minutes(10), .hours(6)])
    func noConnectionIsGivenUpBeforeItsSession(_ silence: TimeAmount) {
        var limits = ServerLimits()
        limits.idleTimeout = silence
        let server = QUICListener.transport(for: limits).maxIdleTimeout
        #expect(server.nanoseconds > UInt64(silence.nanoseconds))
        // The smaller one of both sides' counts.
        #expect(TransportSettings.longline.maxIdleTimeout >= server)
    }

    @Test(arguments: [true, false]) func noWindowIsLargerThanClientsBelieve(_ isOfAChannel: Bool) throws {
        let window = isOfAChannel ? \ServerLimits.channelWindow : \ServerLimits.unacknowledgedBytesPerSession
        var configuration = LonglineServer.Configuration(
            store: .shared(InMemoryStore()),
            certificate: { TLSServerCredentials(certificateChainPEM: "", privateKeyPEM: "") },
            tokenKeys: [SigningKey.generate(.edDSA).verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.limits[keyPath: window] = FrameLimits.maximumChannelWindow
        try configuration.validate()
        configuration.limits[keyPath: window] += 1
        let error = #expect(throws: ServerError.self) { try configuration.validate() }
        #expect(error?.code == .invalidConfiguration)
    }

    @Test func publishesThatWaitForTheStoreAreBoundedInBytes() async throws {
        let store = FaultyStore()
        let (gate, release) = AsyncStream.makeStream(of: Void.self)
        store.set { $0.beforeAppend = { for await _ in gate {} } }
        var limits = ServerLimits()
        limits.appendBytesPerLoop = 20_000
        try await withServer(store: store, limits: limits, loops: 1) { server in
            defer { release.finish() }
            let large = String(repeating: "x", count: 15_000)
            let first = try await server.connected("ann")
            let second = try await server.connected("bob")
            try await first.send(first.publishFrames(large, to: .user(ann)))
            // The store has not answered: there is no room beside it, though another user asks.
            guard case .refused(let refused) = try await second.publish(large, to: .user(bob)) else {
                Issue.record("entered beyond the limit")
                return
            }
            #expect(refused.code == .overloaded && refused.retryAfter > 0)
            release.finish()
            _ = try await first.next { if case .published(let published) = $0 { published } else { nil } }
            let third = try await server.connected("eve")
            let again = try await third.publish("there is room again", to: .user(eve))
            guard case .published = again else {
                Issue.record("\(again)")
                return
            }
        }
    }

    @Test func readsAreBoundedPerLoop() async throws {
        let store = FaultyStore()
        let underWay = Mutex((now: 0, most: 0))
        let (gate, release) = AsyncStream.makeStream(of: Void.self)
        let (started, start) = AsyncStream.makeStream(of: Void.self)
        store.set { faults in
            faults.whileReading = {
                underWay.withLock {
                    $0.now += 1
                    $0.most = max($0.most, $0.now)
                }
                start.yield()
                for await _ in gate {}
                underWay.withLock { $0.now -= 1 }
            }
        }
        var limits = ServerLimits()
        limits.concurrentReadsPerLoop = 3
        try await withServer(store: store, limits: limits, loops: 1) { server in
            defer { release.finish() }
            var devices: [(device: TestDevice, inbox: ChannelID)] = []
            for number in 0..<8 {
                let inbox = ChannelID.user(identifier { try UserID("u\(number)") })
                let device = try await server.connected("u\(number)")
                try await device.publish("note", to: inbox)
                devices.append((device, inbox))
            }
            var starts = started.makeAsyncIterator()
            for _ in 0..<3 { await starts.next() }
            // Whatever else it would begin, it has by now.
            try await server.runtime.loops[0].submit { _ in }
            #expect(underWay.withLock { $0.most } == 3)
            release.finish()
            for (device, inbox) in devices { #expect(try await device.text(inbox) == "note") }
            #expect(underWay.withLock { $0.most } == 3)
        }
    }

    @Test func signalsThatWaitWithinATurnAreBounded() async throws {
        var limits = ServerLimits()
        limits.signalsPerLoop = 2
        try await withServer(limits: limits, loops: 1) { server in
            let hall = identifier { try RoomID("hall") }
            let first = try await server.connected("ann")
            let second = try await server.connected("bob")
            for device in [first, second] { _ = try await device.request(hall, number: 1) }
            // Of five kinds, so that none takes another's place, in one turn of the loop.
            try await first.send(
                (128...132).map { kind in
                    (
                        .signal(Signal(channel: .room(hall), kind: SignalKind(rawValue: kind), deadline: 60_000)),
                        .control
                    )
                })
            for kind in [131, 132] as [UInt8] {
                let signal = try await second.next { if case .signal(let signal) = $0 { signal } else { nil } }
                #expect(signal.kind == SignalKind(rawValue: kind))
            }
            #expect(await server.runtime.statistics().signalsDropped[.replaced] == 3)
        }
    }

    /// With a TLS ticket and a resume ticket a client may begin handshakes that it never completes.
    @Test func whatNeverCompletesItsHandshakeTakesNoMoreThanSessions() async throws {
        var limits = ServerLimits()
        limits.maximumSessionsPerUser = 3
        try await withServer(limits: limits, loops: 1) { server in
            let hall = identifier { try RoomID("hall") }
            let room = ChannelKey(tenant: TokenIssuer.tenant, channel: .room(hall))
            let audiences = server.runtime.core.audiences
            let first = try await server.connected("ann", "d0")
            #expect(try await first.request(hall, number: 1).refusal == nil)
            #expect(audiences.count(of: room) == 1)
            var tickets: [Ticket] = []
            for number in 0..<4 {
                let device = try await server.connected("ann", "d\(number)")
                tickets.append(try #require(device.ticket))
                try await device.drop()
            }
            #expect(audiences.count(of: room) == 0)
            var links: [TestDevice] = []
            for (number, ticket) in tickets.enumerated() {
                let link = try await server.device("ann", "d\(number)", early: true)
                try await link.send([(link.connectFrame(.ticket(ticket.ticket)), .control)], early: true)
                links.append(link)
                if number < 3 { _ = try await connected(link) }
            }
            // Nobody is silenced by them, and the last one waits.
            #expect(audiences.count(of: room) == 0)
            while await server.runtime.statistics().earlyConnectsDeferred == 0 { await Task.yield() }
            #expect(await server.runtime.statistics().sessionsGranted == 8)
            try await links[3].completeHandshake()
            _ = try await connected(links[3])
            try await links[3].publish("up", to: .user(ann))
            #expect(audiences.count(of: room) == 1)
            for link in links.prefix(2) {
                try await link.completeHandshake()
                try await link.publish("up", to: .user(ann))
            }
            #expect(audiences.count(of: room) == 3)
            for link in links { try await link.drop() }
            #expect(audiences.count(of: room) == 0)
            #expect(server.runtime.core.registry.earlyLinks == 0)
        }
    }

    private func connected(_ device: TestDevice) async throws -> Connected {
        try await device.next { if case .connected(let connected) = $0 { connected } else { nil } }
    }

    @Test func theUrgencyOfAChannelReachesTheLink() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let inbox = ChannelID.user(ann)
            try await phone.send([(.urgency(ChannelUrgency(channel: inbox, urgency: .bulk)), .control)])
            try await phone.publish("note", to: inbox)
            #expect(try await phone.prioritized() == .bulk)
            try await phone.send([(.urgency(ChannelUrgency(channel: inbox, urgency: .control)), .control)])
            #expect(try await phone.prioritized() == .control)
        }
    }
}
