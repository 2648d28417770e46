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
    var channels: [SessionChannel]
    var ticket: Ticket?
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
        if let close = core.registry.refusal(for: device) { throw Rejection(close: close) }
        do {
            try await admitNumber(of: device)
            let record = try await advanceCursors(of: device)
            let earlier = await earlierSession(of: device)
            let entitlements = try await core.store.entitlements(of: identity.user, in: identity.tenant)
            let channels = entitlements.compactMap { entitlement in
                sessionChannel(entitlement, cursor: record.cursors[entitlement.channel], sent: earlier?.sent)
            }
            return PreparedGrant(
                authenticated: authenticated, earlier: earlier?.session, cursorVersion: record.version,
                channels: channels,
                ticket: core.authenticator.tickets.seal(authenticated, now: core.time()))
        } catch let error as StoreError {
            core.note(error, in: "connect")
            throw Rejection(close: Close(error, limits: core.limits))
        } catch let rejection as Rejection {
            throw rejection
        } catch {
            throw Rejection(close: Close(code: .internalError))
        }
    }

    private func admitNumber(of device: DeviceKey) async throws {
        do {
            let number = connect.connectNumber
            guard try await core.store.admit(device, producer: connect.producer, connectNumber: number) else {
                throw Rejection(close: Close(code: .stale, reason: "a later connect of this outbox was seen"))
            }
        } catch let error as StoreError where error.code == .storageFull {
            // What is stored is still served; the registry compares the numbers of links that are up.
            core.note(error, in: "connect number")
        }
    }

    /// Advances the cursors by what an earlier link of the device left and by what the connect carries, before channels
    /// are loaded: what was confirmed isn't delivered again.
    private func advanceCursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord {
        let places = core.cursors.take(device) + connect.cursors
        do {
            return try await core.store.advance(device, to: places)
        } catch  where error.code == .storageFull {
            core.note(error, in: "cursors")
            core.cursors.put(device, places)
            let stored = try? await core.store.advance(device, to: [])
            var record = stored ?? CursorRecord(version: 0, cursors: [:])
            for place in places {
                if let old = record.cursors[place.channel], old.epoch == place.position.epoch,
                    old.offset >= place.position.offset
                {
                    continue
                }
                record.cursors[place.channel] = place.position
            }
            return record
        }
    }

    private func earlierSession(of device: DeviceKey) async -> (session: UInt64, sent: [ChannelID: Position]?)? {
        func table(_ places: [ChannelPosition]) -> [ChannelID: Position] {
            Dictionary(places.map { ($0.channel, $0.position) }) { _, last in last }
        }
        switch core.registry.earlierSession(of: device, now: .now()) {
        case nil: return nil
        case .attached(let session, let handle): return (session, table(await handle.sentPositions()))
        case .detached(let session, let sent): return (session, sent.map(table))
        }
    }

    private func sessionChannel(
        _ entitlement: Entitlement, cursor: Position?, sent: [ChannelID: Position]?
    ) -> SessionChannel? {
        let head = entitlement.head.position
        if let upTo = entitlement.upTo, let cursor, cursor.epoch == head.epoch, cursor.offset >= upTo {
            return nil  // left, and read to the end
        }
        // Without a table nothing is known. Only what is listed in it was sent and isn't confirmed by now.
        var highest: Offset?
        if let sent {
            let place = sent[entitlement.channel].flatMap { $0.epoch == head.epoch ? $0.offset : nil }
            highest = max(place ?? 0, cursor?.offset ?? 0)
        }
        return SessionChannel(entitlement, cursor: cursor, sent: highest)
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
