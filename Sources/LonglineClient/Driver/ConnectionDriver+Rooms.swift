import LonglineSession
import LonglineWire
import NIOCore

/// Joins, leaves and changes of rooms.
extension ConnectionDriver {
    /// What is asked of the service about a room.
    enum RoomRequestKind {
        case join, leave
        case act(RoomAction)

        var verb: String {
            switch self {
            case .join: "join of"
            case .leave: "leave of"
            case .act: "change of"
            }
        }
    }

    /// Someone who waits for the answer to a join, a leave or a change.
    struct RoomWaiter {
        var room: RoomID
        var kind: RoomRequestKind
        /// Whether it went out on the present link.
        var isSent = false
        var changes = RoomChanges()
        var done: (Result<JoinReceipt, ClientError>) -> Void
    }

    private static let maximumRoomRequests = 256

    /// Joins, leaves or changes a room, now or once connected. What is so already stays, so a request without an answer is
    /// sent again.
    func requestRoom(
        _ room: RoomID, _ kind: RoomRequestKind, done: @escaping (Result<JoinReceipt, ClientError>) -> Void
    ) -> UInt64 {
        lastRoomRequest += 1
        let id = lastRoomRequest
        switch phase {
        case .idle:
            done(.failure(ClientError(.notConnected, message: "the client isn't connected", advice: "call connect()")))
        case .stopped(let code, let reason):
            done(.failure(ClientError(stoppedBy: code, reason: reason)))
        case .preparing, .connecting, .connected, .waiting:
            guard roomRequests.count < Self.maximumRoomRequests else {
                done(.failure(ClientError(.tooManyRequests, message: "256 requests wait for an answer")))
                return id
            }
            roomRequests[id] = RoomWaiter(room: room, kind: kind, done: done)
            sendRoomRequests()
            pump()
        }
        return id
    }

    func cancelRoomRequest(_ id: UInt64) {
        roomRequests.removeValue(forKey: id)?.done(
            .failure(ClientError(.disconnected, message: "the wait was cancelled; the request may still be served")))
    }

    /// Sends what was not sent on this link, as far as the session takes requests; an answer makes room for the next.
    func sendRoomRequests() {
        guard case .connected = phase else { return }
        for (id, waiter) in roomRequests.sorted(by: { $0.key < $1.key }) where !waiter.isSent {
            let sent =
                switch waiter.kind {
                case .join: session.join(waiter.room, request: id, now: clock.now())
                case .leave: session.leave(waiter.room, request: id, now: clock.now())
                case .act(let action):
                    session.manage(
                        RoomCommand(request: id, room: waiter.room, action: action), now: clock.now())
                }
            guard sent else { return }
            roomRequests[id]?.isSent = true
        }
    }

    func roomAnswered(_ answer: RoomAnswer, _ told: RoomSettings?) {
        defer { sendRoomRequests() }
        guard let waiter = roomRequests.removeValue(forKey: answer.request) else { return }
        if let refusal = answer.refusal {
            waiter.done(
                .failure(
                    ClientError(
                        .refused, message: "\(waiter.kind.verb) room \(waiter.room) was refused (\(refusal.rawValue))",
                        advice: Self.advice(refusal), refusal: refusal)))
        } else {
            let settings = self.settings(told, of: waiter.room, waiter.changes)
            waiter.done(.success(JoinReceipt(position: answer.position, settings: settings)))
        }
    }

    /// The settings that came with an answer, if they are the room's, with what its log said of them meanwhile.
    func settings(_ told: RoomSettings?, of room: RoomID, _ changes: RoomChanges) -> RoomSettings? {
        guard var settings = told, settings.room == room else { return nil }
        changes.apply(to: &settings, for: user)
        return settings
    }

    /// An entry may overtake an answer whose settings are of a place before it.
    func noteChange(_ entry: Entry, at position: Position, in channel: ChannelID) {
        guard case .room(let room) = channel, let change = entry.change else { return }
        for (id, waiter) in roomRequests where waiter.isSent && waiter.room == room {
            roomRequests[id]?.changes.note(change, at: position, for: user)
        }
        for (id, waiter) in membersWaiters where waiter.isSent && waiter.request.room == room {
            membersWaiters[id]?.changes.note(change, at: position, for: user)
        }
    }

    /// Where the user's stay in a room ends, and whether another one has begun.
    func noteStay(_ entry: Entry, at position: Position, in channel: ChannelID) {
        guard case .room = channel, let user else { return }
        if entry.endsStay(of: user) {
            keepStay(StoredStay(end: position), in: channel)
        } else if entry.kind == .joined, entry.member == user {
            if endedStays[channel] != nil { keepStay(nil, in: channel) }
        } else {
            noteNews(upTo: position, in: channel)
        }
    }

    /// Something came of a channel, up to a place. Of a room that is beyond the stay that ended: another one has begun, whatever became of
    /// its first entry.
    func noteNews(upTo position: Position, in channel: ChannelID) {
        if let stay = endedStays[channel], !stay.isAhead(of: position) { keepStay(nil, in: channel) }
    }

    /// A log ends here by now: an end of a stay behind that is lost, and something else may stand in its place.
    func forgetStay(beyond end: Position, in channel: ChannelID) {
        guard let stay = endedStays[channel], stay.end.epoch == end.epoch, stay.end.offset > end.offset else { return }
        keepStay(nil, in: channel)
    }

    /// Durably with the next flush: the process may end before its next connect.
    private func keepStay(_ stay: StoredStay?, in channel: ChannelID) {
        endedStays[channel] = stay
        pending.endedStays[channel] = .some(stay)
    }

    /// What earlier processes saw end.
    func takeEndedStays(_ state: StoredClientState) {
        for (channel, stay) in state.endedStays {
            if isOfUse(stay, in: channel) {
                endedStays[channel] = stay
            } else {
                pending.endedStays[channel] = .some(nil)
            }
        }
    }

    /// What this process saw end in an earlier turn as the owner of a shared outbox, beside what is durable: another one may have seen
    /// more since, or be done with it.
    func goOnToForget(_ stays: [ChannelID: StoredStay]) {
        for (channel, stay) in stays where isOfUse(stay, in: channel) {
            if let durable = endedStays[channel], !stay.isNews(to: durable) { continue }
            keepStay(stay, in: channel)
        }
    }

    /// Whether there is a cursor to forget, or will be once the app confirms what it has. Where a process went on behind the end, the user
    /// has joined again.
    private func isOfUse(_ stay: StoredStay, in channel: ChannelID) -> Bool {
        guard let cursor = session.cursor(of: channel) else { return ledger.isWaited(for: channel) }
        return stay.isAhead(of: cursor)
    }

    /// Forgets the cursors of rooms that the user left, once the service has accepted two connects that named them at the end:
    /// else every room of the user's life would be named at each start. Whoever joins again gets the new stay from its beginning
    /// whatever cursor there is, and nothing of the old one.
    ///
    /// One isn't enough: a service whose disk is full accepts it with the place in memory only, and gives the whole old stay again, after
    /// a restart, to a device that has no place there.
    /// - Parameter version: of the service's cursor record, as it was told with the last of these.
    func forgetEndedStays(version: UInt64) {
        for (channel, stay) in endedStays {
            guard let named = session.namedCursors[channel], named.epoch == stay.end.epoch,
                named.offset >= stay.end.offset
            else { continue }
            // The end is the last that comes of a stay. Who confirmed more has joined again.
            guard named == stay.end else {
                keepStay(nil, in: channel)
                continue
            }
            // A lower one is of an older record.
            guard let first = stay.namedAt, version >= first else {
                keepStay(StoredStay(end: stay.end, namedAt: version), in: channel)
                session.nameAgain(channel)
                continue
            }
            endedStays[channel] = nil
            pending.endedStays.removeValue(forKey: channel)
            session.nameNoMore(channel)
            pending.cursors[channel] = nil
            pending.forgottenCursors.insert(channel)
        }
    }

    func failRoomRequests(_ error: ClientError) {
        let waiters = roomRequests
        roomRequests = [:]
        for waiter in waiters.values { waiter.done(.failure(error)) }
    }

    static func advice(_ refusal: RefusalCode) -> String {
        switch refusal {
        case .unknownChannel: "only members may: join the room, or have an owner add this user"
        case .forbidden: "the token, the room's settings or its owners don't allow it"
        case .unknownRecipient: "make the user a member first"
        case .roomFull: "the room has as many members as it may have"
        case .limitReached: "the user is in as many rooms as one may be: leave one first"
        case .overloaded, .storageFull: "try again in a while"
        default: ""
        }
    }
}

extension StoredStay {
    /// Whether a cursor has not come farther than the end.
    func isAhead(of cursor: Position) -> Bool { cursor.epoch == end.epoch && cursor.offset <= end.offset }

    /// Whether another stay in the room ended later, or the service was told of this one later.
    func isNews(to other: StoredStay) -> Bool {
        guard end == other.end else { return end.epoch == other.end.epoch && end.offset > other.end.offset }
        return namedAt ?? 0 > other.namedAt ?? 0
    }
}

/// What a room's log said of its settings, and of the user's role, while an answer about the room was under way.
struct RoomChanges {
    private enum Kind { case joining, publishing, role }

    /// The last of each kind.
    private var last: [Kind: (change: RoomAction, place: Position)] = [:]

    mutating func note(_ change: RoomAction, at place: Position, for user: UserID?) {
        let kind: Kind
        switch change {
        case .setJoining: kind = .joining
        case .setPublishing: kind = .publishing
        case .setRole(_, let member):
            guard member == user else { return }
            kind = .role
        case .add, .remove, .delete: return
        }
        last[kind] = (change, place)
    }

    func apply(to settings: inout RoomSettings, for user: UserID?) {
        for (change, place) in last.values.sorted(by: { $0.place.offset < $1.place.offset }) {
            settings.apply(change, at: place, for: user)
        }
    }
}
