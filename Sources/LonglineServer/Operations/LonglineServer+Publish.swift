import LonglineSession
public import LonglineStore
public import LonglineWire
public import NIOCore

/// What the app's own server publishes.
public struct ServicePublish: Sendable {
    /// The tenant.
    public var tenant: TenantID
    /// Where it goes: a room that exists, a broadcast, or the inbox of who is to get a direct message.
    public var channel: ChannelID
    /// Whom it comes from; that user need not be a member of the room.
    public var sender: UserID
    /// The device it is said to come from: the ledger keeps one for each.
    public var device: DeviceID
    /// The outbox, with ``id`` and ``tag``, by which a publish that is sent again is known: see ``/LonglineStore/PublishLedger``.
    public var producer: ProducerID
    /// Counts within the producer, from 1; publishes into one channel have to come in the order of their IDs.
    public var id: PublishID
    /// Tells this publish from another with the same ID.
    public var tag: PublishTag
    /// What it does; a message is entered unless told otherwise. With ``/LonglineWire/PublishKind/retract(_:)`` any message of the channel
    /// is taken back, whoever wrote it: a direct message by its author's record, with the author as ``sender``.
    public var kind: PublishKind
    /// The message.
    public var payload: ByteBuffer
    /// How long it is worth delivering, in milliseconds from now; 0 for ever.
    public var timeToLive: UInt64

    /// A publish.
    public init(
        tenant: TenantID, channel: ChannelID, sender: UserID, device: DeviceID, producer: ProducerID, id: PublishID,
        tag: PublishTag, payload: ByteBuffer, timeToLive: UInt64 = 0, kind: PublishKind = .message
    ) {
        self.tenant = tenant
        self.channel = channel
        self.sender = sender
        self.device = device
        self.producer = producer
        self.id = id
        self.tag = tag
        self.payload = payload
        self.timeToLive = timeToLive
        self.kind = kind
    }
}

extension LonglineServer {
    /// Publishes for the app's own server: into the same log by the same queue as what devices publish, and the same sessions
    /// are woken.
    ///
    /// Scopes, membership, rates and the app's own decision don't count; the room has to exist. A direct message is entered in
    /// the inbox of its sender, and the recipient's copy follows from it; a block holds, but for a retraction. While the sender's account
    /// is being erased it is refused with ``/LonglineWire/RefusalCode/overloaded``, and nothing is entered; an erasure that is asked for
    /// meanwhile waits until it is.
    /// - Returns: where it stands. For a direct message that is the sender's record.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    public func publish(_ message: ServicePublish) async throws(ServerError) -> AppendOutcome {
        if let outcome = try await publishUnlessErasing(message) { return outcome }
        return .refused(Refused(id: message.id, code: .overloaded, retryAfter: Self.erasureRetry))
    }

    /// How long who publishes as a user whose account is being erased is told to wait, in milliseconds.
    private static let erasureRetry: UInt64 = 5_000

    /// Publishes as ``publish(_:)`` does.
    /// - Returns: nil while the sender's account is being erased.
    /// - Throws: as ``publish(_:)``.
    package func publishUnlessErasing(_ message: ServicePublish) async throws(ServerError) -> AppendOutcome? {
        try await requireRuntime().publish(message)
    }

    /// The store, for reading on behalf of the app's own server.
    /// - Throws: ``ServerError/Code/notRunning``.
    package func openStore() throws(ServerError) -> any MessageStore { try requireRuntime().core.store }

    /// Reads next to nothing from the store, to see that it can be read.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    package func checkStore() async throws(ServerError) {
        let store = try openStore()
        do { _ = try await store.pendingErasures(limit: 1) } catch {
            // One that says that it has too much to do is there.
            guard !error.isPassing else { return }
            throw ServerError(.storeUnavailable, message: "the store could not be asked", cause: error)
        }
    }

    /// Whether the erasure of a user's account is resolved, and not at its end.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    package func isErasurePending(of user: UserID, in tenant: TenantID) async throws(ServerError) -> Bool {
        let store = try openStore()
        do { return try await store.isErasurePending(of: user, in: tenant) } catch {
            throw ServerError(.storeUnavailable, message: "the store could not be asked", cause: error)
        }
    }

    /// Makes a user a member of a room for the app's own server, or ends the membership, whatever the room's settings say.
    /// The user's sessions and the room learn it at once. While the user's account is being erased nobody is made a member: that is refused
    /// with ``/LonglineWire/RefusalCode/overloaded``; an erasure that is asked for meanwhile waits until it is done, and ends it.
    /// - Parameters:
    ///   - user: who becomes a member, or is none any more.
    ///   - room: the room; it is made when it does not exist.
    ///   - tenant: its tenant.
    ///   - membership: what is to be so.
    /// - Returns: what was done, or why not. What is so already stays, and enters nothing.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    public func set(
        _ membership: RoomMembership, of user: UserID, in room: RoomID, tenant: TenantID
    ) async throws(ServerError) -> RoomOutcome {
        try await setUnlessErasing(membership, of: user, in: room, tenant: tenant) ?? .refused(.overloaded)
    }

    /// Makes or ends a membership as ``set(_:of:in:tenant:)`` does.
    /// - Returns: nil while the account of who is to be a member is being erased.
    /// - Throws: as ``set(_:of:in:tenant:)``.
    package func setUnlessErasing(
        _ membership: RoomMembership, of user: UserID, in room: RoomID, tenant: TenantID
    ) async throws(ServerError) -> RoomOutcome? {
        let device = DeviceKey(tenant: tenant, user: user, device: Self.serviceDevice)
        return try await requireRuntime().set(membership, of: device, in: room)
    }

    /// Deletes a room for the app's own server, whoever its owners are: one entry ends every membership. The members' sessions learn it at
    /// once. Who joins it afterwards makes it anew.
    /// - Parameters:
    ///   - room: the room.
    ///   - tenant: its tenant.
    ///   - sender: who the entry says it was; need not be a member, nor a user.
    /// - Returns: what was done; a room without members stays as it is. Refused with
    ///   ``/LonglineWire/RefusalCode/unknownChannel`` where there never was such a room.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    public func delete(
        _ room: RoomID, in tenant: TenantID, as sender: UserID
    ) async throws(ServerError) -> RoomOutcome {
        let device = DeviceKey(tenant: tenant, user: sender, device: Self.serviceDevice)
        return try await requireRuntime().change(room, .dissolve, by: device)
    }

    /// What the app's own server is called where a device has to be named.
    static let serviceDevice: DeviceID = {
        do { return try DeviceID("app-server") } catch { preconditionFailure("a well-formed name: \(error)") }
    }()
}

/// What a user is to a room.
public enum RoomMembership: Hashable, Sendable {
    /// A member with this role; nil: with the one the user has, else an ordinary member.
    case member(RoomRole?)
    /// No member.
    case none
}

extension ServerRuntime {
    /// Publishes for the app's own server: see ``LonglineServer/publishUnlessErasing(_:)``.
    func publish(_ message: ServicePublish) async throws(ServerError) -> AppendOutcome? {
        func refused(_ code: RefusalCode) -> AppendOutcome { .refused(Refused(id: message.id, code: code)) }
        guard message.payload.readableBytes <= core.admissionLimits.maximumPayload(in: message.tenant) else {
            return refused(.payloadTooLarge)
        }
        var (channel, recipient) = (message.channel, UserID?.none)
        if case .user(let user) = message.channel {
            channel = .user(message.sender)
            if user != message.sender { recipient = user }
        }
        let request = AppendRequest(
            device: DeviceKey(tenant: message.tenant, user: message.sender, device: message.device),
            producer: message.producer, channel: channel,
            publish: Publish(
                id: message.id, tag: message.tag, after: 0, recipient: recipient, kind: message.kind,
                timeToLive: message.timeToLive, payload: message.payload),
            isService: true)
        // One loop takes them all, so that they reach the store in the order of the calls.
        guard let loop = loops.first else { return refused(.overloaded) }
        let reply = loop.eventLoop.makePromise(of: AppendOutcome.self)
        loop.execute { $0.publishUnlessErasing(request, reply: reply) }
        do { return try await reply.futureResult.get() } catch is AccountIsBeingErased {
            return nil
        } catch let error as StoreError {
            throw ServerError(.storeUnavailable, message: "the store could not be asked", cause: error)
        } catch {
            throw ServerError(.notRunning, message: "the server stopped", cause: error)
        }
    }

    /// Makes or ends a membership: see ``LonglineServer/setUnlessErasing(_:of:in:tenant:)``.
    func set(
        _ membership: RoomMembership, of device: DeviceKey, in room: RoomID
    ) async throws(ServerError) -> RoomOutcome? {
        switch membership {
        case .member(let role):
            guard let work = try await beginUnlessErasing(device.userKey) else { return nil }
            defer { work.end() }
            return try await change(room, .appoint(role), by: device)
        case .none: return try await change(room, .leave, by: device)
        }
    }

    /// Changes a room, and tells whom it concerns.
    func change(
        _ room: RoomID, _ change: RoomChange, by device: DeviceKey
    ) async throws(ServerError) -> RoomOutcome {
        let key = ChannelKey(tenant: device.tenant, channel: .room(room))
        let outcome: RoomOutcome
        do { outcome = try await core.store.change(room, change, by: device) } catch {
            // The store may have it all the same.
            if change.mayChangeWhoPublishes { core.roomRules.changed(key) }
            core.note(error, in: "room")
            throw ServerError(.storeUnavailable, message: "the room could not be changed", cause: error)
        }
        if let receipt = outcome.receipt, receipt.isNew {
            if change.mayChangeWhoPublishes { core.roomRules.changed(key) }
            await tell(receipt, device, room)
        }
        return outcome
    }

    /// Tells the sessions of the user whose right changed, and wakes the room, on every loop. One that is stuck
    /// does so once it goes on.
    fileprivate func tell(_ receipt: RoomReceipt, _ device: DeviceKey, _ room: RoomID) async {
        let key = ChannelKey(tenant: device.tenant, channel: .room(room))
        let user = device.userKey
        let changed = receipt.entitlement.map { SessionChannel($0, cursor: nil, sent: $0.after) }
        await loops.run(waitingAtMost: core.limits.loopPatience) { loop in
            if receipt.isDeleted { loop.roomDeleted(key, at: receipt.position) }
            // No link has the number 0: nobody asked.
            if let changed { loop.channelChanged(changed, of: user, except: 0) }
            loop.wake([key: receipt.head])
        }
    }
}
