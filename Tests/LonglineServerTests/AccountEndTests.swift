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

/// A device that logs out, and a user whose account goes.
@Suite(.timeLimit(.minutes(1))) struct AccountEndTests {
    private func key(_ device: TestDevice) -> DeviceKey {
        DeviceKey(tenant: TokenIssuer.tenant, user: device.user, device: device.device)
    }

    // MARK: Logout

    @Test func aLogoutEndsTheDevicesSessionAndVoidsItsCredentials() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            try await phone.send([(.logout, .control)])
            let close = try await phone.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .loggedOut)
            #expect(try await phone.closed() == .loggedOut)
            #expect(try await server.store.generations(of: key(phone)) == RevocationGenerations(user: 0, device: 1))
            let token = try await server.issuer.token("ann", "phone")
            for credential in [Credential.token(token), .ticket(try #require(phone.ticket).ticket)] {
                let again = try await server.device("ann", "phone", loop: 1)
                try await again.send([(again.connectFrame(credential), .control)])
                #expect(try await again.closed() == .credentialRevoked)
            }
            try await tablet.message("still here", to: ann)
            // The next login begins a session of its own.
            let generations = try await server.store.generations(of: key(phone))
            let fresh = try await server.issuer.token("ann", "phone", login: 2, generations: generations)
            let again = try await server.device("ann", "phone")
            #expect(try await again.connect(credential: .token(fresh)).resumed == false)
        }
    }

    @Test func aLogoutThatCanNotBeStoredIsNotAnsweredAsOne() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann", "phone")
            store.set { $0.isFull = true }
            try await phone.send([(.logout, .control)])
            #expect(try await phone.closed() == .overloaded)
            store.set { $0.isFull = false }
            #expect(try await server.store.generations(of: key(phone)) == RevocationGenerations(user: 0, device: 0))
        }
    }

    // MARK: Erasure

    @Test func anErasedUsersSessionsEndAndNothingIsLeft() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            let other = try await server.connected("bob")
            for (number, device) in [phone, other].enumerated() {
                _ = try await device.request(hall, number: UInt64(number))
            }
            try await phone.message("hi bob", to: bob)
            let record = try await phone.delivered(.user(ann)).entry.offset
            let epoch = try #require(try await server.store.head(of: inbox(ann))).position.epoch
            try await phone.acknowledge(.user(ann), epoch: epoch, offset: record)
            // Publishes that are under way when the account goes.
            let last = (0..<50).flatMap { phone.publishFrames("m\($0)", to: .user(ann), recipient: bob) }
            try await phone.send(last)
            let runtime = server.runtime
            let user = UserKey(tenant: TokenIssuer.tenant, user: ann)
            try await runtime.core.beginErasure(user, on: runtime.loops).finished()
            #expect(try await server.store.pendingErasures(limit: 10).isEmpty)
            for device in [phone, tablet] { #expect(try await device.closed() == .loggedOut) }
            #expect(try await other.delivered(.room(hall), kind: .left).entry.sender == ann)
            #expect(try await other.text(.user(bob)) == "hi bob")
            // Nothing came back after the call.
            let step = try await server.store.erase(user: ann, in: TokenIssuer.tenant)
            #expect(step == ErasureStep(isDone: true, left: []))
            let head = try #require(try await server.store.head(of: inbox(ann)))
            #expect(head.position.offset == 0 && head.position.epoch != epoch)
            #expect(
                try await server.store.admit(key(phone), producer: phone.producer, connectNumber: 1) == .firstOfDevice)
            // Old credentials stay void.
            let again = try await server.device("ann", "phone")
            let ticket = try #require(phone.ticket).ticket
            try await again.send([(again.connectFrame(.ticket(ticket)), .control)])
            #expect(try await again.closed() == .credentialRevoked)
        }
    }

    @Test(arguments: [false, true])
    func whileAnAccountIsBeingErasedNobodyComesInAndLosesWhatIsAcknowledged(isFull: Bool) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            // Resolved, and not begun: as after a restart, or while the disk is full.
            try await store.requestErasure(of: ann, in: TokenIssuer.tenant)
            store.set { $0.isFull = isFull }
            func connect() async throws -> TestDevice {
                let device = try await server.device("ann", "phone")
                let generations = try await store.generations(of: key(device))
                let token = try await server.issuer.token("ann", "phone", login: 2, generations: generations)
                try await device.send([(device.connectFrame(.token(token)), .control)])
                return device
            }
            #expect(try await connect().closed() == .loggedOut)
            store.set { $0.isFull = false }
            _ = try await server.connected("bob")
            let runtime = server.runtime
            let user = UserKey(tenant: TokenIssuer.tenant, user: ann)
            try await runtime.core.beginErasure(user, on: runtime.loops).finished()
            let again = try await connect()
            _ = try await again.next { if case .connected = $0 { true } else { nil } }
            guard case .published = try await again.publish("a new beginning", to: .user(ann)) else {
                Issue.record("the account can't be used again")
                return
            }
        }
    }

    private func erasable(_ server: TestServer) async throws -> TestDevice {
        let device = try await server.device("ann", "phone")
        let scopes: TokenScopes = [.publish, .receive, .erase]
        _ = try await device.connect(credential: .token(try await server.issuer.token("ann", "phone", scopes: scopes)))
        return device
    }

    private func refusal(_ device: TestDevice) async throws -> ErasureRefused {
        try await device.next { if case .erasureRefused(let refusal) = $0 { refusal } else { nil } }
    }

    @Test func aDeviceHasItsUsersAccountErased() async throws {
        try await withServer { server in
            let phone = try await erasable(server)
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            try await phone.message("hi bob", to: bob)
            try await phone.send([(.eraseAccount, .control)])
            for device in [phone, tablet] { #expect(try await device.closed() == .loggedOut) }
            let runtime = server.runtime
            let key = UserKey(tenant: TokenIssuer.tenant, user: ann)
            try await runtime.core.erasures.join(key) {}.finished()
            #expect(try await server.store.pendingErasures(limit: 10).isEmpty)
            #expect(try await server.store.head(of: inbox(ann))?.position.offset ?? 0 == 0)
            let again = try await server.device("ann", "phone")
            try await again.send([(again.connectFrame(.ticket(try #require(phone.ticket).ticket)), .control)])
            #expect(try await again.closed() == .credentialRevoked)
        }
    }

    @Test func withoutTheRightOrRoomNothingIsErasedAndTheSessionGoesOn() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let tablet = try await server.connected("ann", "tablet")
            try await tablet.send([(.eraseAccount, .control)])
            #expect(try await refusal(tablet) == ErasureRefused(code: .forbidden))
            let phone = try await erasable(server)
            store.set { $0.isFull = true }
            try await phone.send([(.eraseAccount, .control)])
            let refused = try await refusal(phone)
            #expect(refused.code == .storageFull && refused.retryAfter > 0)
            store.set { $0.isFull = false }
            #expect(try await store.pendingErasures(limit: 10).isEmpty)
            for device in [tablet, phone] { try await device.message("still here", to: bob) }
        }
    }

    @Test func whatAnEarlierProcessBeganIsBroughtToItsEnd() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            try await phone.message("hi bob", to: bob)
            try await server.store.requestErasure(of: ann, in: TokenIssuer.tenant)
            await server.runtime.core.resumeErasures(on: server.runtime.loops)
            #expect(try await phone.closed() == .loggedOut)
            #expect(try await server.store.pendingErasures(limit: 10).isEmpty)
            #expect(try await server.store.erase(user: ann, in: TokenIssuer.tenant).isDone)
        }
    }

    private func order(_ id: PublishID) throws -> ServicePublish {
        ServicePublish(
            tenant: TokenIssuer.tenant, channel: .user(bob), sender: ann, device: try DeviceID("api"),
            producer: ProducerID(high: 1, low: 1), id: id, tag: 1, payload: ByteBuffer(string: "hi bob"))
    }

    /// It was asked for before the account was to go: it is entered before that goes, and goes with it.
    @Test func anErasureWaitsForWhatTheAppsServerPublishesAsTheUser() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let runtime = server.runtime
            let (asked, held) = (AsyncStream.makeStream(of: Void.self), AsyncStream.makeStream(of: Void.self))
            store.set {
                $0.afterErasurePending = {
                    asked.continuation.finish()
                    for await _ in held.stream {}
                }
            }
            let message = try order(1)
            let publish = Task { try await runtime.publish(message) }
            for await _ in asked.stream {}
            let isErased = Mutex(false)
            let erasure = Task {
                let user = UserKey(tenant: TokenIssuer.tenant, user: ann)
                try await runtime.core.beginErasure(user, on: runtime.loops).finished()
                isErased.withLock { $0 = true }
            }
            // Until it waits, or came to its end without.
            while try await runtime.loops[0].submit({ $0.workWaiterCount }) == 0, !isErased.withLock({ $0 }) {
                await Task.yield()
            }
            held.continuation.finish()
            let outcome = try await publish.value
            guard case .entered? = outcome else { return #expect(Bool(false), "it was not entered: \(outcome as Any)") }
            try await erasure.value
            #expect(try await store.head(of: inbox(bob))?.position.offset ?? 0 > 0)
            #expect(try await store.head(of: inbox(ann))?.position.offset ?? 0 == 0)
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: message.device)
            #expect(try await store.admit(device, producer: message.producer, connectNumber: 1) == .firstOfDevice)
        }
    }

    @Test func whatTheAppsServerPublishesIsEnteredInTheOrderOfTheCallsWhicheverAccountIsLookedUpFirst() async throws {
        let store = FaultyStore()
        var limits = ServerLimits()
        // Two of them may wait.
        limits.appendBytesPerLoop = 1_200
        try await withServer(store: store, limits: limits) { server in
            let runtime = server.runtime
            let (asked, held) = (AsyncStream.makeStream(of: Void.self), AsyncStream.makeStream(of: Void.self))
            store.set {
                $0.afterErasurePending = {
                    asked.continuation.finish()
                    for await _ in held.stream {}
                }
            }
            let orders = [try order(1), try order(2), try order(3)]
            let first = Task { try await runtime.publish(orders[0]) }
            for await _ in asked.stream {}
            let second = Task { try await runtime.publish(orders[1]) }
            // Until it waits, or was entered without.
            while try await runtime.loops[0].submit({ $0.lookups.waiting.count }) < 2,
                try await store.head(of: inbox(ann))?.position.offset ?? 0 == 0
            {
                await Task.yield()
            }
            let isAnswered = Mutex(false)
            let third = Task {
                defer { isAnswered.withLock { $0 = true } }
                return try await runtime.publish(orders[2])
            }
            while try await runtime.loops[0].submit({ $0.lookups.waiting.count }) < 3, !isAnswered.withLock({ $0 }) {
                await Task.yield()
            }
            held.continuation.finish()
            guard case .refused(let refused)? = try await third.value else {
                return #expect(Bool(false), "more may wait than the limit says")
            }
            #expect(refused.code == .overloaded)
            for outcome in [try await first.value, try await second.value] {
                guard case .entered? = outcome else { return #expect(Bool(false), "not entered: \(outcome as Any)") }
            }
            #expect(try await runtime.loops[0].submit { $0.lookups.waiting.count } == 0)
        }
    }

    @Test func whileAnAccountIsBeingErasedTheAppsServerPublishesNothingAsTheUser() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            try await store.requestErasure(of: ann, in: TokenIssuer.tenant)
            #expect(try await server.runtime.publish(try order(1)) == nil)
            #expect(try await store.head(of: inbox(bob))?.position.offset ?? 0 == 0)
            await server.runtime.core.resumeErasures(on: server.runtime.loops)
            guard case .entered? = try await server.runtime.publish(try order(2)) else {
                Issue.record("whoever has the name next is written for")
                return
            }
        }
    }

    /// It was asked for before the account was to go: it is made before that goes, and goes with it.
    @Test func anErasureWaitsForAMembershipThatTheAppsServerIsMaking() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let runtime = server.runtime
            let (asked, held) = (AsyncStream.makeStream(of: Void.self), AsyncStream.makeStream(of: Void.self))
            store.set {
                $0.afterErasurePending = {
                    asked.continuation.finish()
                    for await _ in held.stream {}
                }
            }
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: LonglineServer.serviceDevice)
            let making = Task { try await runtime.set(.member(nil), of: device, in: hall) }
            for await _ in asked.stream {}
            let isErased = Mutex(false)
            let erasure = Task {
                try await runtime.core.beginErasure(device.userKey, on: runtime.loops).finished()
                isErased.withLock { $0 = true }
            }
            // Until it waits, or came to its end without.
            while await runtime.loops.submit({ $0.workWaiterCount }).allSatisfy({ $0 == 0 }), !isErased.withLock({ $0 })
            {
                await Task.yield()
            }
            held.continuation.finish()
            guard case .done? = try await making.value else {
                Issue.record("nobody was made a member")
                return
            }
            try await erasure.value
            let channels = try await store.entitlements(of: ann, in: TokenIssuer.tenant).map(\.channel)
            #expect(!channels.contains(.room(hall)))
            #expect(await runtime.loops.submit { $0.workWaiterCount }.allSatisfy { $0 == 0 })
        }
    }

    @Test func whileAnAccountIsBeingErasedTheAppsServerMakesItNoMember() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: LonglineServer.serviceDevice)
            try await store.requestErasure(of: ann, in: TokenIssuer.tenant)
            #expect(try await server.runtime.set(.member(nil), of: device, in: hall) == nil)
            #expect(try await store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .room(hall))) == nil)
            await server.runtime.core.resumeErasures(on: server.runtime.loops)
            guard case .done? = try await server.runtime.set(.member(nil), of: device, in: hall) else {
                Issue.record("whoever has the name next is made a member")
                return
            }
        }
    }

    /// The list of pending erasures is old when a user's turn comes: another erased the user meanwhile, who signed up again.
    @Test func anAccountThatWasMadeAnewIsNotErasedByAnOldList() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            try await store.requestErasure(of: ann, in: TokenIssuer.tenant)
            let runtime = server.runtime
            let again = AppendRequest(
                device: DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("phone")),
                producer: ProducerID(high: 1, low: 1), channel: .user(ann),
                publish: Publish(
                    id: 1, tag: 1, after: 0, recipient: nil, timeToLive: 0,
                    payload: ByteBuffer(string: "a new beginning")
                ))
            store.set {
                $0.afterPendingErasures = {
                    let user = UserKey(tenant: TokenIssuer.tenant, user: ann)
                    try? await runtime.core.beginErasure(user, on: runtime.loops).finished()
                    _ = await store.append([again])
                }
            }
            await runtime.core.resumeErasures(on: runtime.loops)
            let page = try await store.read(inbox(ann), after: 0, upTo: nil, maximumBytes: .max, now: 0)
            #expect(page.items.count == 1, "what was acknowledged is there")
            let outcome = try #require(await store.append([again]).first)
            guard case .duplicate = outcome else { return #expect(Bool(false), "its outbox is known: \(outcome)") }
        }
    }

    private func inbox(_ user: UserID) -> ChannelKey { ChannelKey(tenant: TokenIssuer.tenant, channel: .user(user)) }
}
