import LonglineSession
import LonglineWire
import NIOCore

/// What an app asks for beside its messages, and what is checked of, and broken in, what a device says.
extension ModelDevice {
    func changeRoom(_ room: RoomID, joins: Bool) {
        guard !isOver, !isAsleep else { return }
        nextRequest += 1
        let request = nextRequest
        rooms[request] = .room(room)
        input { session, now in
            _ =
                joins
                ? session.join(room, request: request, now: now) : session.leave(room, request: request, now: now)
        }
    }

    /// Does with a room what only an owner may, whether it is one or not.
    func manage(_ room: RoomID, _ action: RoomAction) {
        guard !isOver, !isAsleep else { return }
        nextRequest += 1
        let command = RoomCommand(request: nextRequest, room: room, action: action)
        input { session, now in _ = session.manage(command, now: now) }
    }

    /// Asks for a page of a channel's past.
    func askHistory(_ channel: ChannelID, from: Offset, epoch: Epoch, _ direction: HistoryDirection, limit: UInt64) {
        guard !isOver, !isAsleep else { return }
        nextRequest += 1
        let request = HistoryRequest(
            request: nextRequest, channel: channel, epoch: epoch, from: from, direction: direction, limit: limit)
        pages[request.request] = AskedPage(request: request, head: simulation.store.durable.logs[channel]?.head)
        input { session, now in
            if !session.history(request, now: now) { self.pages[request.request] = nil }
        }
    }

    /// Has its user's account erased, if it is connected.
    func eraseAccount() {
        guard !isOver, !isAsleep else { return }
        input { session, now in _ = session.eraseAccount(now: now) }
    }

    func setMode(_ mode: SessionMode) {
        guard !isOver, !isAsleep else { return }
        input { session, now in session.setMode(mode, now: now) }
    }

    /// For a rule that is broken: each publish on a lane that is finished behind it.
    func sendOnOwnLane(_ publish: Publish, _ header: LaneHeader?) {
        guard let header else { return }
        let own = LaneID(rawValue: nextLane)
        nextLane += 1
        link?.send(.lane(header), lane: own, from: .client)
        link?.send(.publish(publish), lane: own, from: .client)
        link?.finish(own, from: .client)
        var watch = ClientWatch()
        _ = watch.sent(.lane(header), lane: own)
        _ = watch.sent(.publish(publish), lane: own)
        if let problem = watch.finished(own) { simulation.violation("\(device): \(problem)") }
    }

    /// The cursors that a frame names, as they leave.
    func named(_ cursors: [ChannelPosition]) -> [ChannelPosition] {
        var cursors = cursors
        if has(.keepSkipsBack) { cursors.removeAll { skipEnds[$0.channel]?.contains($0.position) == true } }
        simulation.checker.connects(cursors, by: app)
        return cursors
    }

    /// What a connect says: a number that is on the disk, and every cursor if the server's record turned out to be an older one.
    func checkConnect(_ connect: Connect) {
        if connect.connectNumber > durable.connectNumber {
            simulation.violation("\(device)'s connect \(connect.connectNumber) left before it was on the disk")
        }
        let named = namedBefore.union(connect.cursors.map(\.channel))
        namedBefore = []
        let missing = owedCursors.subtracting(named).intersection(durable.cursors.keys)
        if !missing.isEmpty {
            simulation.violation("\(device) does not say its cursors again to an older record: \(missing.count)")
        }
        owedCursors = []
        namedCursors = named
    }

    /// An older record of the server's has to learn every cursor again, but those that it was just told.
    func noteRecord(_ connected: Connected) {
        guard connected.cursorVersion < session.cursorVersion else { return }
        simulation.counts.olderRecords += 1
        owedCursors = Set(durable.cursors.keys).subtracting(namedCursors)
    }

    /// What the broken rules make of a part.
    func damaged(_ frame: Frame, lane: LaneID) -> Frame {
        guard has(.swapPublishedParts), case .part(let part) = frame, !part.isEnd else { return frame }
        let last = lastParts.updateValue(part.bytes, forKey: lane)
        guard let last, last.readableBytes == part.bytes.readableBytes, random.happens(0.5) else { return frame }
        return .part(Part(offset: part.offset, bytes: last))
    }
}
