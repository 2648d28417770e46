import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Why a connect is turned away: what the client is told.
struct Rejection: Error {
    let close: Close
}

/// An admission's result: all that a grant needs but the loop's own part.
struct PreparedGrant: Sendable {
    var authenticated: AuthenticatedIdentity
    /// The session that goes on; nil for a new one.
    var earlier: UInt64?
    var cursorVersion: UInt64
    /// Whether nobody connected with this number before, so that no replay can be the reason of this connect and its
    /// publishes need not wait for the handshake.
    var isFresh: Bool
    var channels: [SessionChannel]
    var ticket: Ticket?
    /// Direct messages of which the record did not know that the device had them.
    var late: LateConfirmation?
}

/// What happens to a CONNECT off the event loop, in two steps with a hop between them:
/// ```
///   identify ─▶ (loop: register the user, begin the load) ─▶ prepare ─▶ (loop: subscribe, grant)
/// ```
/// The hop makes two races harmless: a revocation or a join that comes from now on finds the session by its user, and an
/// entry that commits from now on is in the store's answer or in the loop's ``WakeHistory``.
struct Admission: Sendable {
    let core: ServerCore
    let connect: Connect

    /// Who it is, or why not.
    func identify() async throws(Rejection) -> AuthenticatedIdentity {
        do {
            return try await core.authenticator.authenticate(connect.credential, now: core.time())
        } catch {
            throw Rejection(close: Close(error, limits: core.limits))
        }
    }

    /// Takes in the connect number and the cursors, then loads the channels.
    func prepare(_ authenticated: AuthenticatedIdentity) async throws(Rejection) -> PreparedGrant {
        let identity = authenticated.identity
        let device = DeviceKey(tenant: identity.tenant, user: identity.user, device: identity.device)
        let policy = core.devicePolicies.policy(of: identity.tenant)
        if let close = core.registry.refusal(for: device, evicts: policy != .all) { throw Rejection(close: close) }
        do {
            // Before anything is taken in: of a device that lost its place, nothing is. It changes nothing itself, since
            // what is asked may be a replay.
            if policy != .all,
                case .refused(let holder, _) = try await core.store.place(of: DeviceLogin(identity), policy: policy)
            {
                throw Rejection(close: Close(evictedBy: policy, identity, holder: holder))
            }
            let number = try await admitNumber(of: device)
            let (record, late, unwritten) = try await advanceCursors(of: device)
            let earlier = await earlierSession(of: device)
            let entitlements = try await core.store.channels(of: device)
            keep(unwritten, of: device, in: entitlements)
            let places = Places(
                stored: record.cursors,
                claimed: Dictionary(connect.cursors.map { ($0.channel, $0.position) }) { first, _ in first },
                sent: earlier.map(\.sent) ?? (number.isFirst ? [:] : nil))
            return PreparedGrant(
                authenticated: authenticated, earlier: earlier?.session, cursorVersion: record.version,
                isFresh: number.isFresh,
                channels: entitlements.compactMap(places.sessionChannel),
                ticket: core.authenticator.tickets.seal(authenticated, now: core.time()), late: late)
        } catch let error as StoreError {
            core.note(error, in: "connect")
            throw Rejection(close: Close(error, limits: core.limits))
        } catch let rejection as Rejection {
            throw rejection
        } catch {
            throw Rejection(close: Close(code: .internalError))
        }
    }

    /// - Returns: `isFirst`: whether nothing can have been sent to the device before. The store's word alone is not
    ///   enough: it forgets a device that was unseen for long, and one that came after the backup it was restored from.
    ///   `isFresh`: see ``PreparedGrant``.
    private func admitNumber(of device: DeviceKey) async throws -> (isFirst: Bool, isFresh: Bool) {
        let number = connect.connectNumber
        do {
            switch try await core.store.admit(device, producer: connect.producer, connectNumber: number) {
            case .erasing: throw Self.isBeingErased
            case .stale:
                throw Rejection(close: Close(code: .stale, reason: "a later connect of this outbox was seen"))
            case .repeated: return (false, false)
            // The ledger knows a producer from its second connect on.
            case .returning: return (false, number > 1)
            case .firstOfDevice:
                return (number <= 1 && connect.cursorVersion == 0 && connect.cursors.isEmpty, number > 1)
            }
        } catch let error as StoreError where error.code == .storageFull {
            // What is stored is still served; the registry compares the numbers of links. An erasure waits for room, too.
            core.note(error, in: "connect number")
            guard try await !core.store.isErasurePending(of: device.user, in: device.tenant) else {
                throw Self.isBeingErased
            }
            return (false, false)
        }
    }

    /// What a session of the account acknowledged now would be erased with the rest.
    private static var isBeingErased: Rejection {
        Rejection(close: Close(code: .loggedOut, reason: "the account is being erased"))
    }

    /// Advances the cursors by what an earlier link of the device left and by what the connect carries, before channels
    /// are loaded: what was confirmed isn't delivered again.
    /// - Returns: the record then, and what of the connect's own cursors the store had no room for.
    private func advanceCursors(
        of device: DeviceKey
    ) async throws(StoreError) -> (record: CursorRecord, late: LateConfirmation?, unwritten: [ChannelPosition]) {
        let acknowledged = core.cursors.waiting(for: device)
        let places = acknowledged + connect.cursors
        var record = CursorRecord(version: 0, cursors: [:])
        do {
            record = try await core.store.cursors(of: device)
            let news = places.filter { [record] in !record.covers($0) }
            // Where nothing moves nobody waits for the one writer, however many cursors the device has.
            guard !news.isEmpty else { return (record, nil, []) }
            try await core.store.move(device, to: news)
            let before = record
            record = try await core.store.cursors(of: device)
            return (record, lateConfirmation(of: device.user, before, acknowledged, record), [])
        } catch {
            // A device that is turned away names its cursors again.
            guard error.code == .storageFull else { throw error }
            core.note(error, in: "cursors")
            let unwritten = connect.cursors.filter { [record] in !record.covers($0) }
            for place in places where !record.covers(place) { record.cursors[place.channel] = place.position }
            return (record, nil, unwritten)
        }
    }

    /// Has what was confirmed be written once there is room. A device may name any channel: only its own ones, in their present
    /// lives, or names that no store will ever take would wait for it.
    private func keep(_ places: [ChannelPosition], of device: DeviceKey, in entitlements: [Entitlement]) {
        guard !places.isEmpty else { return }
        let epochs = Dictionary(entitlements.map { ($0.channel, $0.head.position.epoch) }) { first, _ in first }
        core.cursors.put(device, places.filter { epochs[$0.channel] == $0.position.epoch })
    }

    /// What of the inbox the connect confirms that nobody knew of; of what was acknowledged on an earlier link the senders know.
    private func lateConfirmation(
        of user: UserID, _ before: CursorRecord, _ acknowledged: [ChannelPosition], _ after: CursorRecord
    ) -> LateConfirmation? {
        let inbox = ChannelID.user(user)
        guard let named = connect.cursors.first(where: { $0.channel == inbox })?.position,
            after.cursors[inbox] == named
        else { return nil }
        let known =
            [before.cursors[inbox], acknowledged.first { $0.channel == inbox }?.position]
            .compactMap { $0?.epoch == named.epoch ? $0?.offset : nil }.max() ?? 0
        return named.offset > known ? LateConfirmation(after: known, upTo: named) : nil
    }

    private func earlierSession(of device: DeviceKey) async -> (session: UInt64, sent: [ChannelID: Position]?)? {
        func table(_ places: [ChannelPosition]) -> [ChannelID: Position] {
            Dictionary(places.map { ($0.channel, $0.position) }) { _, last in last }
        }
        switch core.registry.earlierSession(of: device, now: .now()) {
        case nil: return nil
        case .attached(let session, let handle):
            // Where its loop is stuck, more is marked as redelivered than need be.
            return (session, await handle.sentPositions(within: core.limits.loopPatience).map(table))
        case .detached(let session, let sent): return (session, sent.map(table))
        }
    }
}

/// What is known of a device's places in its channels, when it connects.
struct Places {
    /// The cursors in the store, those of the connect taken in.
    var stored: [ChannelID: Position]
    /// The cursors that the connect names.
    var claimed: [ChannelID: Position]
    /// The highest places ever sent to the device; a channel that isn't listed has none beyond its stored cursor. nil
    /// when nothing is known.
    var sent: [ChannelID: Position]?

    /// The channel as the session takes it up; nil when the user left it and the device has it to its end.
    func sessionChannel(_ entitlement: Entitlement) -> SessionChannel? {
        let head = entitlement.head.position
        // The session goes by the device's own word, which may be behind the record.
        let record = stored[entitlement.channel]
        let cursor = claimed[entitlement.channel] ?? record
        if let upTo = entitlement.upTo, let cursor, cursor.epoch == head.epoch, cursor.offset >= upTo {
            return nil  // left, and read to the end
        }
        var highest: Offset?
        if let sent {
            // What was confirmed once was sent, also where the device forgot it.
            highest =
                [sent[entitlement.channel], record, cursor]
                .compactMap { $0 }.filter { $0.epoch == head.epoch && $0.offset <= head.offset }.map(\.offset).max()
                ?? 0
        }
        return SessionChannel(entitlement, cursor: record, sent: highest)
    }
}

extension SessionChannel {
    /// The store's entitlement in the session's terms.
    init(_ entitlement: Entitlement, cursor: Position?, sent: Offset?) {
        self.init(
            channel: entitlement.channel, head: entitlement.head.position, first: entitlement.head.first,
            after: entitlement.after, upTo: entitlement.upTo, cursor: cursor, sent: sent)
    }
}
