import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// One stay of a user in a room: the range of offsets that the user may read.
struct Stint: Hashable {
    /// Nothing at or below is readable: just before the join entry.
    var after: Offset
    /// The leave entry, once there is one.
    var upTo: Offset?
    /// The log's life that the offsets belong to.
    var epoch: Epoch

    init(_ channel: SessionChannel) {
        after = channel.after
        upTo = channel.upTo
        epoch = channel.head.epoch
    }

    /// Whether `next` is later knowledge. Changes reach a loop from several others, in any order: joining and leaving
    /// move the range forward only, so that an old change can't undo a newer one. A stay ends with the first of what may end it.
    func isSuperseded(by next: Stint) -> Bool {
        if epoch != next.epoch { return true }
        if after != next.after { return after < next.after }
        guard let end = next.upTo else { return false }
        return upTo.map { end < $0 } ?? true
    }
}

extension SessionHost {
    /// Takes note of a room's range, and subscribes while the stay lasts.
    /// - Returns: whether it is news.
    func noteStint(_ channel: SessionChannel) -> Bool {
        guard case .room(let room) = channel.channel, let device else { return true }
        let stint = Stint(channel)
        if let known = rooms[room], !known.isSuperseded(by: stint) { return false }
        rooms[room] = stint
        let key = ChannelKey(tenant: device.tenant, channel: channel.channel)
        if stint.upTo == nil {
            loop.subscribe(self, to: key)
        } else {
            // What is readable up to the leave entry is in the log: the session was told where it ends.
            loop.unsubscribe(self, from: key)
        }
        return true
    }

    /// The session has nothing to do with a room any more that its user left.
    func forgetStint(_ channel: ChannelID) {
        guard case .room(let room) = channel, rooms[room]?.upTo != nil else { return }
        rooms[room] = nil
        forgetSent(channel)
    }

    /// Every membership of a room ended with an entry: this user's too, unless it began later.
    func roomDeleted(_ room: RoomID, at end: Position) {
        guard phase == .granted || phase == .established, let stint = rooms[room], stint.epoch == end.epoch,
            stint.after < end.offset, end.offset < stint.upTo ?? .max
        else { return }
        channelChanged(
            SessionChannel(
                channel: .room(room), head: end, first: 0, after: stint.after, upTo: end.offset, cursor: nil))
    }

    /// Joins, leaves or changes a room.
    func changeRoom(_ work: RoomWork) {
        guard let device else { return }
        if let refusal = refusal(of: work) { return refuse(work, refusal) }
        let core = self.core
        roomChangeBegins(in: work.room)
        let published = appendsWaiting > 0 ? loop.appendsAnswered() : nil
        let asOf = core.roomRules.count
        inOrder { () async -> Result<RoomOutcome, StoreError> in
            // What was published before it is judged by the room as it was. No publish that counts here waits for a change.
            try? await published?.get()
            return await Result { () async throws(StoreError) in
                try await core.store.change(work.room, work.change, by: device)
            }
        } then: { host, result in
            host.roomChanged(work, device, asOf: asOf, result)
            host.roomChangeEnded(in: work.room)
        }
    }

    private func refusal(of work: RoomWork) -> RefusalCode? {
        guard work.isJoin else { return nil }
        let isMember = rooms[work.room].map { $0.upTo == nil } ?? false
        let stays = rooms.values.count { $0.upTo == nil }
        return !isMember && stays >= core.limits.roomsPerUser ? .limitReached : nil
    }

    /// - Parameter asOf: how often it had changed before who publishes in rooms.
    private func roomChanged(
        _ work: RoomWork, _ device: DeviceKey, asOf: UInt64, _ result: Result<RoomOutcome, StoreError>
    ) {
        let key = ChannelKey(tenant: device.tenant, channel: .room(work.room))
        switch result {
        case .failure(let error):
            core.note(error, in: "room")
            // The store may have it all the same.
            if work.change.mayChangeWhoPublishes { core.roomRules.changed(key) }
            if error.isPassing { refuse(work, error.refusal) } else { end(Close(error, limits: core.limits)) }
        case .success(.refused(let code)): refuse(work, code)
        case .success(.done(let receipt)):
            // The store has it: the user's devices and the room learn it even if this link is gone.
            if receipt.isNew, work.change.mayChangeWhoPublishes { core.roomRules.changed(key) }
            let answered = tell(receipt, device, work.room)
            if phase != .ended {
                let answer = RoomAnswer(request: work.request, refusal: nil, position: receipt.position)
                let settings = work.isJoin ? receipt.settings : nil
                if let settings { voices.learn(settings.mayPublish, in: work.room, asOf: asOf, now: now) }
                session.roomAnswered(answer, settings: settings, channel: answered, now: now)
            }
            guard receipt.isNew else { return }
            if receipt.isDeleted { loop.publishDeletion(of: key, at: receipt.position) }
            loop.publishWakes([key: receipt.head])
        }
    }

    /// Tells every session of the user whose right to the room changed.
    /// - Returns: what this session has to learn with its answer, if it is one of them.
    private func tell(_ receipt: RoomReceipt, _ device: DeviceKey, _ room: RoomID) -> SessionChannel? {
        guard let user = receipt.user, let entitlement = receipt.entitlement else { return nil }
        // Nothing of a new stay was sent to anybody; a stay that goes on is no news to its sessions.
        let channel = SessionChannel(entitlement, cursor: nil, sent: entitlement.after)
        let key = UserKey(tenant: device.tenant, user: user)
        let isOwn = user == device.user
        var answered = isOwn ? channel : nil
        // An answer that another device's later change overtook says nothing about the room any more.
        if isOwn, phase != .ended, !noteStint(channel), rooms[room] != Stint(channel) { answered = nil }
        let asked = id
        for sibling in loop.siblings { sibling.execute { $0.channelChanged(channel, of: key, except: asked) } }
        loop.channelChanged(channel, of: key, except: asked)
        return answered
    }

    func refuse(_ work: RoomWork, _ code: RefusalCode) {
        guard phase != .ended else { return }
        loop.statistics.countRefusal(code)
        let answer = RoomAnswer(request: work.request, refusal: code, position: Position(epoch: 0, offset: 0))
        session.roomAnswered(answer, channel: nil, now: now)
    }

    // MARK: Members

    /// Reads a page of a room's members.
    func listMembers(_ request: MembersRequest) {
        guard let device else { return }
        guard takes(.members) else {
            return answer(MembersPage(request: request.request, refusal: .overloaded))
        }
        let core = self.core
        offLoop {
            await Result { () async throws(StoreError) in
                try await core.store.members(
                    of: request.room, in: device.tenant, for: device.user, after: request.after,
                    limit: Int(request.limit))
            }
        } then: { host, result in
            host.membersListed(request, result)
        }
    }

    private func membersListed(_ request: MembersRequest, _ result: Result<MemberList?, StoreError>) {
        guard phase != .ended else { return }
        let page: MembersPage
        var settings: RoomSettings?
        switch result {
        case .failure(let error):
            core.note(error, in: "members")
            page = MembersPage(request: request.request, refusal: .overloaded)
        case .success(nil): page = MembersPage(request: request.request, refusal: .unknownChannel)
        case .success(let list?):
            page = MembersPage(
                request: request.request, total: UInt64(list.total), members: list.members, more: list.more)
            settings = list.settings
        }
        answer(page, settings)
    }

    private func answer(_ page: MembersPage, _ settings: RoomSettings? = nil) {
        if let refusal = page.refusal { loop.statistics.countRefusal(refusal) }
        session.membersRead(page, settings: settings, now: now)
    }
}

/// A request about a room on its way to the store.
struct RoomWork: Sendable {
    /// What the answer names.
    let request: UInt64
    let room: RoomID
    let change: RoomChange

    var isJoin: Bool { if case .join = change { true } else { false } }

    init(_ request: RoomRequest, _ change: RoomChange) {
        self.request = request.request
        room = request.room
        self.change = change
    }

    init(_ command: RoomCommand) {
        request = command.request
        room = command.room
        change = .act(command.action)
    }
}
