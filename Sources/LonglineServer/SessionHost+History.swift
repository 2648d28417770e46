import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Pages of history, which the session asks for one at a time.
extension SessionHost {
    func readHistory(_ read: HistoryRead) {
        guard let identity else { return }
        // What ends a stay reaches its sessions later than the log. Who is known to have left needs no look, and shares the read.
        var reader: UserID?
        if case .room(let room) = read.channel, rooms[room]?.upTo == nil { reader = identity.user }
        let range = LogRange(
            after: read.after, upTo: read.upTo, direction: read.direction, maximumEntries: read.maximumEntries,
            maximumBytes: read.maximumBytes, reader: reader)
        let key = ReadQueue.Key(
            channel: ChannelKey(tenant: identity.tenant, channel: read.channel), stretch: .page(range))
        loop.read(key, for: self, purpose: .history(read.request))
    }

    func historyDone(_ request: UInt64, _ result: Result<SessionPage, StoreError>, now: NIODeadline) {
        guard phase != .ended else { return }
        switch result {
        case .success(let page): session.historyRead(request, page: page, now: now)
        case .failure(let error) where error.code == .unknownChannel:
            session.historyFailed(request, code: .unknownChannel, retryAfter: 0, now: now)
        case .failure:
            // Nothing hangs on a page: the device asks again, whatever the store's trouble was.
            let retryAfter = core.limits.retryAfter.wholeMilliseconds
            session.historyFailed(request, code: .overloaded, retryAfter: retryAfter, now: now)
        }
        wake()
    }

    /// Counts an answer that leaves.
    func count(_ page: HistoryAnswer) {
        if let refusal = page.refusal {
            loop.statistics.countRefusal(refusal)
        } else {
            loop.statistics.historyPages += 1
        }
    }
}
