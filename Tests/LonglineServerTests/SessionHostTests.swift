import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

@Suite(.timeLimit(.minutes(1))) struct SessionHostTests {
    // MARK: Figures

    private func waits(_ time: UInt64) async { while WallClock.milliseconds() <= time { await Task.yield() } }

    @Test func twoHeartbeatsAreOneInterval() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            for (nonce, intervals) in [(UInt64(1), UInt64(0)), (2, 1), (3, 2)] {
                try await phone.send([(.ping(Ping(nonce: nonce)), .control)])
                #expect(try await phone.next { if case .pong(let pong) = $0 { pong.nonce } else { nil } } == nonce)
                #expect(await server.runtime.statistics().heartbeatInterval.count == intervals)
            }
        }
    }

    @Test func whatIsCaughtUpWithOrHeldBackIsNoDeliveryThatTookLong() async throws {
        var limits = ServerLimits()
        limits.backgroundHold = .milliseconds(50)
        try await withServer(limits: limits) { server in
            func counted() async -> UInt64 { await server.runtime.statistics().deliveryLatency.count }
            let phone = try await server.connected("ann")
            #expect(try await phone.request(hall, number: 1).refusal == nil)
            _ = try await phone.delivered(.room(hall), kind: .joined)
            let other = try await server.connected("bob", "laptop")
            #expect(try await other.request(hall, number: 1).refusal == nil)
            for device in [phone, other] { _ = try await device.delivered(.room(hall), kind: .joined) }
            try await other.drop()
            try await phone.message("missed", to: bob)
            _ = try await phone.delivered(.user(ann))
            let before = await counted()
            let late = try await server.connected("bob", "tablet", loop: 1)
            #expect(try await late.text(.user(bob)) == "missed")
            #expect(await counted() == before)
            await waits(WallClock.milliseconds())
            try await phone.message("live", to: bob)
            #expect(try await late.text(.user(bob)) == "live")
            _ = try await phone.delivered(.user(ann))
            #expect(await counted() == before + 2)
            // In the background what is told waits on purpose.
            try await late.send([(.mode(.background), .control)])
            try await phone.publish("held", to: .room(hall))
            #expect(try await late.text(.room(hall)) == "held")
            _ = try await phone.delivered(.room(hall))
            #expect(await counted() == before + 3)
        }
    }

    // MARK: Messages

    @Test func aDeviceThatIsBehindIsToldSoAndWhenItIsNotAnyMore() async throws {
        var limits = ServerLimits()
        limits.channelWindow = 20_000
        limits.maximumPayload = 10_000
        limits.lagNoticeTime = .milliseconds(20)
        try await withServer(limits: limits) { server in
            let slow = try await server.connected("bob")
            let phone = try await server.connected("ann", loop: 1)
            func lag() async throws -> ChannelLag {
                try await slow.next { if case .behind(let lag) = $0 { lag } else { nil } }
            }
            for _ in 0..<5 { try await phone.message(String(repeating: "x", count: 9_000), to: bob) }
            let behind = try await lag()
            let head = try #require(
                try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))))
            #expect(behind == ChannelLag(channel: .user(bob), head: behind.head, isBehind: true))
            #expect(behind.head.epoch == head.position.epoch && behind.head.offset <= head.position.offset)
            var last: Offset = 0
            while last < head.position.offset {
                last = try await slow.delivered(.user(bob)).entry.offset
                try await slow.acknowledge(.user(bob), epoch: head.position.epoch, offset: last)
            }
            #expect(try await lag() == ChannelLag(channel: .user(bob), head: head.position, isBehind: false))
        }
    }

    @Test(arguments: [0, 1]) func directMessageReachesTheRecipientAndTheSendersOtherDevice(loop: Int) async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: loop)
            let other = try await server.connected("bob", loop: loop)
            try await phone.message("hi bob", to: bob)
            #expect(try await other.text(.user(bob)) == "hi bob")
            #expect(try await tablet.text(.user(ann)) == "hi bob")
            let echo = try await phone.delivered(.user(ann))
            #expect(echo.entry.producer == phone.producer)
        }
    }

    @Test func whatWasSentWhileOfflineComesWithTheConnect() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            for index in 0..<20 { try await phone.message("m\(index)", to: bob) }
            let other = try await server.connected("bob", loop: 1)
            for index in 0..<20 { #expect(try await other.text(.user(bob)) == "m\(index)") }
        }
    }

    @Test func roomHearsAMessageOnEveryLoopOnce() async throws {
        try await withServer(loops: 3) { server in
            var members: [TestDevice] = []
            for (index, user) in ["ann", "bob", "eve", "joe", "kim"].enumerated() {
                let member = try await server.connected(user, loop: index)
                #expect(try await member.request(hall, number: 1).refusal == nil)
                members.append(member)
            }
            try await members[0].publish("first", to: .room(hall))
            try await members[4].publish("second", to: .room(hall))
            for member in members {
                #expect(try await member.text(.room(hall)) == "first")
                #expect(try await member.text(.room(hall)) == "second")
                #expect(member.untaken(.room(hall)).allSatisfy { $0.entry.kind != .message })
            }
        }
    }

    /// A room's subscribers on one loop stand at one place: the log is read once for all of them.
    @Test func subscribersAtOnePlaceShareARead() async throws {
        let store = FaultyStore()
        try await withServer(store: store, loops: 1) { server in
            var members: [TestDevice] = []
            for index in 0..<40 {
                let member = try await server.connected("user\(index)")
                _ = try await member.request(hall, number: 1)
                members.append(member)
            }
            // Everybody has seen everybody's join.
            for member in members {
                while try await member.delivered(.room(hall), kind: .joined).entry.sender.description != "user39" {}
            }
            let before = store.reads.withLock { $0 }
            try await members[0].publish("hello", to: .room(hall))
            for member in members { #expect(try await member.text(.room(hall)) == "hello") }
            let reads = store.reads.withLock { $0 } - before
            #expect(reads < members.count / 2, "\(reads) reads for \(members.count) subscribers")
        }
    }

    @Test func publishesOfOneTickShareABatch() async throws {
        let store = FaultyStore()
        try await withServer(store: store, loops: 1) { server in
            let phone = try await server.connected("ann")
            let frames = (0..<50).flatMap { phone.publishFrames("m\($0)", to: .user(ann)) }
            try await phone.send(frames)
            for index in 0..<50 { #expect(try await phone.text(.user(ann)) == "m\(index)") }
            #expect(store.batches.withLock { $0 } == [50])
        }
    }

    /// The message commits, and wakes, after the recipient's channels were read and before its session listens.
    @Test(arguments: [0, 1]) func whatCommitsDuringAConnectIsDelivered(loop: Int) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            _ = try await server.connected("bob", "tablet", loop: loop)
            let request = AppendRequest(
                device: DeviceKey(tenant: TokenIssuer.tenant, user: bob, device: try DeviceID("tablet")),
                producer: ProducerID(high: 1, low: 1), channel: .user(bob),
                publish: Publish(
                    id: 1, tag: 1, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "just now")))
            let publisher = server.runtime.loops[0]
            store.set { faults in
                faults.afterEntitlements = {
                    guard case .entered(let published, _, _, _) = await store.append([request]).first else { return }
                    let key = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))
                    try? await publisher.submit { $0.publishWakes([key: published.position]) }
                }
            }
            let phone = try await server.connected("bob", "phone", loop: loop)
            #expect(try await phone.text(.user(bob)) == "just now")
        }
    }

    // MARK: Rooms

    @Test func joiningReachesTheUsersOtherDeviceAndLeavingEndsIt() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            let other = try await server.connected("bob")
            _ = try await phone.request(hall, number: 1)
            _ = try await other.request(hall, number: 1)
            try await other.publish("all of you", to: .room(hall))
            #expect(try await phone.text(.room(hall)) == "all of you")
            #expect(try await tablet.text(.room(hall)) == "all of you")

            _ = try await tablet.request(hall, number: 2, leave: true)
            #expect(try await tablet.delivered(.room(hall), kind: .left).entry.sender == ann)
            #expect(try await phone.delivered(.room(hall), kind: .left).entry.sender == ann)
            try await other.publish("without ann", to: .room(hall))
            #expect(try await other.text(.room(hall)) == "all of you")
            #expect(try await other.text(.room(hall)) == "without ann")
            // What comes after the leave entry reaches neither device: a message through the inbox comes first.
            try await other.message("ping", to: ann)
            for device in [phone, tablet] {
                #expect(try await device.text(.user(ann)) == "ping")
                #expect(device.untaken(.room(hall)).allSatisfy { $0.entry.kind != .message })
            }
            guard case .refused(let refused) = try await phone.publish("back", to: .room(hall)) else {
                Issue.record("a publish after leaving was entered")
                return
            }
            #expect(refused.code == .unknownChannel)
        }
    }

    @Test func someoneElsesChannelsAreUnknown() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            for channel in [ChannelID.user(bob), .room(hall)] {
                guard case .refused(let refused) = try await phone.publish("x", to: channel) else {
                    Issue.record("entered into \(channel)")
                    continue
                }
                #expect(refused.code == .unknownChannel)
            }
        }
    }

    @Test func joinsAreLimitedInRateAndNumber() async throws {
        var limits = ServerLimits()
        limits.roomRequestBurst = 3
        limits.roomRequestsPerSecond = 0.001
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann")
            for number in 1...3 as ClosedRange<UInt64> {
                #expect(try await phone.request(try RoomID("r\(number)"), number: number).refusal == nil)
            }
            #expect(try await phone.request(try RoomID("r4"), number: 4).refusal == .overloaded)
        }
        limits = ServerLimits()
        limits.roomsPerUser = 2
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann")
            #expect(try await phone.request(try RoomID("r1"), number: 1).refusal == nil)
            #expect(try await phone.request(try RoomID("r2"), number: 2).refusal == nil)
            #expect(try await phone.request(try RoomID("r3"), number: 3).refusal == .limitReached)
            #expect(try await phone.request(try RoomID("r2"), number: 4).refusal == nil)
            #expect(try await phone.request(try RoomID("r1"), number: 5, leave: true).refusal == nil)
            #expect(try await phone.request(try RoomID("r3"), number: 6).refusal == nil)
        }
    }

    // MARK: Taking over and coming back

    @Test(arguments: [0, 1]) func aSecondLinkOfADeviceReplacesTheFirst(loop: Int) async throws {
        try await withServer { server in
            let first = try await server.connected("ann")
            let second = try await server.device("ann", loop: loop)
            second.producer = first.producer
            second.connectNumber = 2
            let connected = try await second.connect()
            #expect(connected.resumed)
            #expect(try await first.closed() == .replaced)
            try await second.publish("still here", to: .user(ann))
            #expect(server.runtime.core.registry.devices(of: UserKey(tenant: TokenIssuer.tenant, user: ann)).count == 1)
        }
    }

    @Test func anOlderLoginNeverEvictsANewer() async throws {
        try await withServer { server in
            let newer = try await server.device("ann")
            _ = try await newer.connect(login: 5)
            let older = try await server.device("ann", loop: 1)
            _ = try await older.connect(login: 4)
            #expect(try await older.closed() == .replaced)
            try await newer.publish("undisturbed", to: .user(ann))
        }
    }

    @Test func aLowerConnectNumberIsStale() async throws {
        try await withServer { server in
            let first = try await server.device("ann")
            first.connectNumber = 7
            _ = try await first.connect()
            try await first.drop()
            let second = try await server.device("ann")
            second.producer = first.producer
            second.connectNumber = 6
            await #expect(throws: TestDevice.LinkEnded.self) { try await second.connect() }
            #expect(try await second.closed() == .stale)
        }
    }

    /// Two connects of one outbox race: the one with the lower number completes its handshake last.
    @Test func anOlderConnectIsStaleWhenTheNewerCameAndWent() async throws {
        try await withServer { server in
            let first = try await server.connected("ann")
            let proof = Credential.ticket(try #require(first.ticket).ticket)
            let older = try await server.device("ann", early: true)
            older.producer = first.producer
            older.connectNumber = 2
            _ = try await older.connect(credential: proof, early: true)
            let newer = try await server.device("ann", loop: 1)
            newer.producer = first.producer
            newer.connectNumber = 3
            _ = try await newer.connect(credential: proof)
            try await newer.drop()
            try await older.completeHandshake()
            #expect(try await older.closed() == .stale)
        }
    }

    /// What it published in early data, and behind its handshake, is sent again on the later link.
    @Test func aConnectThatIsStaleAtItsHandshakePublishesNothing() async throws {
        let store = FaultyStore()
        try await withServer(store: store, loops: 1) { server in
            let first = try await server.device("ann")
            first.connectNumber = 7
            _ = try await first.connect()
            let proof = Credential.ticket(try #require(first.ticket).ticket)
            // The same connect again: what comes with it early may be a replay, and waits.
            let older = try await server.device("ann", early: true)
            (older.producer, older.connectNumber) = (first.producer, 7)
            let flight = older.publishFrames("held", to: .user(ann))
            _ = try await older.connect(credential: proof, early: true, with: flight)
            let newer = try await server.device("ann")
            (newer.producer, newer.connectNumber) = (first.producer, 8)
            _ = try await newer.connect(credential: proof)
            try await older.completeHandshake(behind: older.publishFrames("behind", to: .user(ann)))
            #expect(try await older.closed() == .stale)
            // The loop's batches keep their order: what had been let through would be answered before this.
            try await newer.publish("the only one", to: .user(ann))
            #expect(try await newer.text(.user(ann)) == "the only one")
            #expect(store.batches.withLock { $0 } == [1])
            #expect(try await server.runtime.loops[0].submit { $0.heldPublishes.count } == 0)
        }
    }

    @Test func aFirstConnectGetsNothingMarkedRedelivered() async throws {
        try await withServer { server in
            let sender = try await server.connected("bob")
            try await sender.message("waiting", to: ann)
            let phone = try await server.connected("ann")
            #expect(try await phone.delivered(.user(ann)).redelivered == false)
        }
    }

    /// A device that was restored from a backup names an older place than the store has, also in a room its user left.
    @Test func aRestoredDeviceGetsTheRestOfALeftRoomAgain() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let room = ChannelID.room(hall)
            #expect(try await phone.request(hall, number: 1).refusal == nil)
            try await phone.publish("one", to: room)
            try await phone.publish("two", to: room)
            #expect(try await phone.request(hall, number: 2, leave: true).refusal == nil)
            let one = try await phone.delivered(room)
            _ = try await phone.delivered(room)
            let left = try await phone.delivered(room, kind: .left)
            let key = ChannelKey(tenant: TokenIssuer.tenant, channel: room)
            let epoch = try #require(try await server.store.head(of: key)).position.epoch
            try await phone.acknowledge(room, epoch: epoch, offset: left.entry.offset)
            try await phone.drop()

            let back = try await server.device("ann", loop: 1)
            back.producer = phone.producer
            back.connectNumber = 2
            #expect(try await back.connect().channels.contains { $0.channel == room } == false)
            try await back.drop()

            let restored = try await server.device("ann")
            restored.producer = phone.producer
            restored.connectNumber = 3
            let place = Position(epoch: epoch, offset: one.entry.offset)
            _ = try await restored.connect(cursors: [ChannelPosition(channel: room, position: place)])
            let two = try await restored.delivered(room)
            #expect(String(buffer: two.entry.payload) == "two")
            #expect(two.redelivered)
        }
    }

    @Test func whatWasConfirmedIsNotDeliveredAgain() async throws {
        try await withServer { server in
            let sender = try await server.connected("bob")
            let phone = try await server.connected("ann")
            for index in 0..<3 { try await sender.message("m\(index)", to: ann) }
            _ = try await phone.text(.user(ann))
            let second = try await phone.delivered(.user(ann))
            _ = try await phone.text(.user(ann))
            let epoch = try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann)))
            try await phone.acknowledge(
                .user(ann), epoch: try #require(epoch).position.epoch, offset: second.entry.offset)
            // The confirmation waits in the server, and is in time all the same.
            try await phone.drop()
            let back = try await server.device("ann", loop: 1)
            back.producer = phone.producer
            back.connectNumber = 2
            let connected = try await back.connect(credential: .ticket(try #require(phone.ticket).ticket))
            #expect(connected.resumed)
            #expect(connected.channels.first { $0.channel == .user(ann) }?.recovery == .recovered)
            let third = try await back.delivered(.user(ann))
            #expect(String(buffer: third.entry.payload) == "m2")
            #expect(third.redelivered)
            try await sender.message("m3", to: ann)
            #expect(try await back.delivered(.user(ann)).redelivered == false)
        }
    }

    /// Offsets belong to all channels together, so that most are no entry of a device's own.
    @Test func aConfirmationBetweenTwoEntriesCoversTheFirst() async throws {
        try await withServer { server in
            let sender = try await server.connected("bob")
            let phone = try await server.connected("ann")
            for index in 0..<2 { try await sender.message("m\(index)", to: ann) }
            let first = try await phone.delivered(.user(ann))
            let second = try await phone.delivered(.user(ann))
            #expect(second.entry.offset > first.entry.offset + 1)
            let head = try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann)))
            let epoch = try #require(head).position.epoch
            try await phone.acknowledge(.user(ann), epoch: epoch, offset: first.entry.offset + 1)
            try await phone.drop()
            let back = try await server.device("ann", loop: 1)
            back.producer = phone.producer
            back.connectNumber = 2
            _ = try await back.connect(credential: .ticket(try #require(phone.ticket).ticket))
            let again = try await back.delivered(.user(ann))
            #expect(again.entry.offset == second.entry.offset && again.entry.previous == first.entry.offset + 1)
        }
    }

    /// Before its handshake is complete a link may be a replay: it evicts nobody.
    @Test func anEarlyLinkTakesOverWhenItsHandshakeIsComplete() async throws {
        try await withServer { server in
            let first = try await server.connected("ann")
            let early = try await server.device("ann", loop: 1, early: true)
            early.producer = first.producer
            early.connectNumber = 2
            let waiting = early.publishFrames("from the tunnel", to: .user(ann))
            _ = try await early.connect(
                credential: .ticket(try #require(first.ticket).ticket), early: true, with: waiting)
            _ = try await early.next { if case .published(let published) = $0 { published } else { nil } }
            // The old link is untouched: it even hears of it.
            #expect(try await first.text(.user(ann)) == "from the tunnel")
            try await early.completeHandshake()
            #expect(try await first.closed() == .replaced)
        }
    }

    @Test func earlyPublishesOfAnUnknownOutboxWaitForTheHandshake() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let first = try await server.connected("ann")
            let early = try await server.device("ann", loop: 1, early: true)
            _ = try await early.connect(
                credential: .ticket(try #require(first.ticket).ticket), early: true,
                with: early.publishFrames("first of a new outbox", to: .user(ann)))
            // The loop's batches keep their order: what had been let through would be answered before this.
            let other = try await server.connected("bob", loop: 1)
            try await other.publish("meanwhile", to: .user(bob))
            #expect(store.batches.withLock { $0 } == [1])
            try await early.completeHandshake()
            _ = try await early.next { if case .published(let published) = $0 { published } else { nil } }
            #expect(store.batches.withLock { $0 } == [1, 1])
        }
    }

    /// The ledger keeps what was entered, not what was refused: a replay must not bring that in later.
    @Test func aReplayEntersNothingThatItsSenderWasRefused() async throws {
        try await withServer { server in
            let proof = Credential.ticket(try #require(try await server.connected("ann").ticket).ticket)
            let producer = ProducerID(high: 7, low: 7)
            var flight: [(Frame, LaneID)] = []
            for attempt in 1...2 {
                let link = try await server.device("ann", loop: 1, early: true)
                link.producer = producer
                link.connectNumber = 2
                if attempt == 1 { flight = link.publishFrames("not for you", to: .room(hall)) }
                _ = try await link.connect(credential: proof, early: true, with: flight)
                if attempt == 1 {
                    let refused = try await link.next { if case .refused(let refused) = $0 { refused } else { nil } }
                    #expect(refused.code == .unknownChannel)
                    let tablet = try await server.connected("ann", "tablet")
                    #expect(try await tablet.request(hall, number: 1).refusal == nil)
                }
            }
            // The loop's batches keep their order: what the replay got through would be heard before this.
            let member = try await server.connected("bob", loop: 1)
            _ = try await member.request(hall, number: 1)
            try await member.publish("hello", to: .room(hall))
            let listener = try await server.connected("ann", "tablet")
            #expect(try await listener.text(.room(hall)) == "hello")
        }
    }
}
