import LonglineSession
import LonglineStore
import LonglineWire

/// Joins, leaves and changes of rooms.
extension ModelServer {
    func change(_ request: UInt64, _ room: RoomID, _ change: RoomChange, _ hosted: Hosted) {
        guard let user = hosted.user, let device = hosted.device else { return }
        guard !isDiskFull else {
            let answer = RoomAnswer(
                request: request, refusal: .storageFull, position: Position(epoch: 0, offset: 0))
            return input(hosted) { $0.roomAnswered(answer, channel: nil, now: $1) }
        }
        let written = write { store.change(room, change, user: user, device: device) }
        guard let written else { return }
        guard case .done(let receipt) = written else {
            var answer = RoomAnswer(request: request, refusal: nil, position: Position(epoch: 0, offset: 0))
            if case .refused(let code) = written { answer.refusal = code }
            return input(hosted) { $0.roomAnswered(answer, channel: nil, now: $1) }
        }
        for other in inOrder where other !== hosted && (receipt.isDeleted || other.user == receipt.user) {
            // Another loop's session learns it later than what was entered since.
            later(other) { [weak self] in self?.tell(other, room) }
        }
        let answer = RoomAnswer(request: request, refusal: nil, position: receipt.position)
        let own = receipt.isDeleted || receipt.user == user ? channel(room, of: hosted) : nil
        if let own, own.upTo == nil { hosted.forgotten.remove(own.channel) }
        var settings: RoomSettings?
        if case .join = change { settings = receipt.settings }
        input(hosted) { $0.roomAnswered(answer, settings: settings, channel: own, now: $1) }
        wake([.room(room)])
    }

    private func tell(_ hosted: Hosted, _ room: RoomID) {
        guard hosted.wakes == nil, let channel = channel(room, of: hosted) else { return }
        // The end of a stay that the session forgot is no news.
        guard channel.upTo == nil || !hosted.forgotten.contains(channel.channel) else { return }
        hosted.forgotten.remove(channel.channel)
        input(hosted) { $0.channelChanged(channel, now: $1) }
    }

    /// A room as a session's user may read it now.
    private func channel(_ room: RoomID, of hosted: Hosted) -> SessionChannel? {
        guard let user = hosted.user, let device = hosted.device, let name = hosted.name else { return nil }
        guard var channel = store.channels(of: user, device).first(where: { $0.channel == .room(room) }) else {
            return nil
        }
        channel.sent = sent(.room(room), epoch: channel.head.epoch, to: name)
        return channel
    }
}
