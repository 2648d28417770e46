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
    /// move the range forward only, so that an old change can't undo a newer one.
    func isSuperseded(by next: Stint) -> Bool {
        if epoch != next.epoch { return true }
        if after != next.after { return after < next.after }
        return upTo == nil && next.upTo != nil
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

    /// Joins or leaves a room for the user.
    func changeRoom(_ request: RoomRequest, joining: Bool) {
        guard let device else { return }
        if let refusal = refusal(of: request, joining: joining) { return refuse(request, refusal) }
        let core = self.core
        offLoop {
            await Result { () async throws(StoreError) in
                let position =
                    joining
                    ? try await core.store.join(request.room, by: device, create: true)
                    : try await core.store.leave(request.room, by: device)
                guard let position else { return nil }
                let entitlements = try await core.store.entitlements(of: device.user, in: device.tenant)
                let entitlement = entitlements.first { $0.channel == .room(request.room) }
                // Nothing of a new stay was sent to anybody; a stay that goes on is no news to its sessions.
                let channel = entitlement.map { SessionChannel($0, cursor: nil, sent: $0.after) }
                return RoomChange(position: position, channel: channel)
            }
        } then: { host, result in
            host.roomChanged(request, device, result)
        }
    }

    private func refusal(of request: RoomRequest, joining: Bool) -> RefusalCode? {
        let limits = core.limits
        var bucket =
            roomBucket
            ?? TokenBucket(perSecond: limits.roomRequestsPerSecond, burst: Double(limits.roomRequestBurst), now: now)
        defer { roomBucket = bucket }
        guard bucket.take(now: now) else { return .overloaded }
        let stays = rooms.values.count { $0.upTo == nil }
        if joining, rooms[request.room]?.upTo != nil || rooms[request.room] == nil, stays >= limits.roomsPerUser {
            return .forbidden
        }
        return nil
    }

    private func roomChanged(_ request: RoomRequest, _ device: DeviceKey, _ result: Result<RoomChange?, StoreError>) {
        switch result {
        case .failure(let error):
            core.note(error, in: "room")
            switch error.code {
            case .limitExceeded: refuse(request, .forbidden)
            case .storageFull: refuse(request, .storageFull)
            case .unknownChannel: refuse(request, .unknownChannel)
            case .overloaded: refuse(request, .overloaded)
            default: end(Close(error, limits: core.limits))
            }
        case .success(nil): refuse(request, .unknownChannel)
        case .success(let change?):
            // The store has it: the user's other devices and the room learn it even if this link is gone.
            var answered = change.channel
            if let channel = change.channel {
                // An answer that another device's later change overtook says nothing about the room any more.
                if phase != .ended, !noteStint(channel), rooms[request.room] != Stint(channel) { answered = nil }
                let (user, asked) = (device.userKey, id)
                for sibling in loop.siblings {
                    sibling.execute { $0.channelChanged(channel, of: user, except: asked) }
                }
                loop.channelChanged(channel, of: user, except: asked)
            }
            if phase != .ended {
                let answer = RoomAnswer(request: request.request, refusal: nil, position: change.position)
                session.roomAnswered(answer, channel: answered, now: now)
            }
            let key = ChannelKey(tenant: device.tenant, channel: .room(request.room))
            loop.publishWakes([key: change.channel?.head ?? change.position])
        }
    }

    func refuse(_ request: RoomRequest, _ code: RefusalCode) {
        guard phase != .ended else { return }
        loop.statistics.refusals[code, default: 0] += 1
        let answer = RoomAnswer(request: request.request, refusal: code, position: Position(epoch: 0, offset: 0))
        session.roomAnswered(answer, channel: nil, now: now)
    }
}

/// What a join or leave came to.
struct RoomChange: Sendable {
    /// The entry that records it.
    let position: Position
    /// The room as the user may read it from now on.
    let channel: SessionChannel?
}
