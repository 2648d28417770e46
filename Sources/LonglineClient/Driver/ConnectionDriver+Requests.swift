import LonglineSession
import LonglineWire
import NIOCore

/// Requests and replies, over direct messages of their own kinds: a request that was entered is known by the place of its record
/// in this user's inbox, which a reply names as its target.
///
/// ```
///          ask                entered, or its record came        reply names the record
///   (none) ----> in the outbox -------------------------> waiting ---------------------> answered
///                    |                                      |
///                    '-- refused --> failed <-- deadline ---'
/// ```
extension ConnectionDriver {
    /// Someone who waits for a reply.
    struct RequestWaiter {
        /// Tells when the request is entered; its identity names the waiter while the outbox may renumber its rows.
        let tracker: SendTracker
        var place: Position?
        var timer: DriverTimer?
        let done: (Result<Reply, ClientError>) -> Void
    }

    private static let maximumRequests = 1_024

    func ask(
        _ recipient: UserID, _ payload: ByteBuffer, deadline: TimeAmount,
        done: @escaping (Result<Reply, ClientError>) -> Void
    ) -> UInt64 {
        lastRequest += 1
        let id = lastRequest
        guard requestWaiters.count < Self.maximumRequests else {
            done(.failure(ClientError(.tooManyRequests, message: "\(Self.maximumRequests) requests wait for a reply")))
            return id
        }
        let tracker = SendTracker()
        var waiter = RequestWaiter(tracker: tracker, done: done)
        waiter.timer = schedule(in: deadline) { driver in
            driver.endRequest(id, .failure(ClientError(.timedOut, message: "no reply came in time")))
        }
        requestWaiters[id] = waiter
        // 0 means for ever on the wire.
        let life = UInt64(max(1, deadline.nanoseconds / 1_000_000))
        let request = Submission(
            send: SendID.random(using: &random), destination: .user(recipient), kind: .request,
            timeToLive: life, queuedAt: clock.wall(), payload: payload, seen: clock.now())
        send(request, tracker: tracker) { [unowned self] result in
            if case .failure(let error) = result { endRequest(id, .failure(error)) }
        }
        return id
    }

    /// The app does not wait any more; a reply that still comes is late.
    func cancelRequest(_ id: UInt64) {
        endRequest(id, .failure(ClientError(.disconnected, message: "the wait was cancelled")))
    }

    func failRequests(_ error: ClientError) {
        for id in requestWaiters.keys { endRequest(id, .failure(error)) }
    }

    private func endRequest(_ id: UInt64, _ result: Result<Reply, ClientError>) {
        guard let waiter = requestWaiters.removeValue(forKey: id) else { return }
        waiter.timer?.cancel()
        if let place = waiter.place { requestPlaces[place] = nil }
        waiter.done(result)
    }

    /// Records of requests beyond the end of the user's inbox are lost: a reply that names such a place is of what stands there by now.
    func forgetRequests(beyond end: Position, in channel: ChannelID) {
        guard case .user = channel else { return }
        for (place, id) in requestPlaces where place.epoch == end.epoch && place.offset > end.offset {
            requestPlaces[place] = nil
            requestWaiters[id]?.place = nil
        }
    }

    /// A publish was entered, or its record came: whoever waits for its reply knows the place now.
    func requestEntered(_ tracker: SendTracker, at place: Position) {
        guard let id = requestWaiters.first(where: { $0.value.tracker === tracker })?.key else { return }
        // A service may enter it twice, or tell so.
        if let before = requestWaiters[id]?.place { requestPlaces[before] = nil }
        requestWaiters[id]?.place = place
        requestPlaces[place] = id
    }

    /// A publish was refused for good, or taken back.
    func requestFailed(_ tracker: SendTracker, _ error: ClientError) {
        guard let id = requestWaiters.first(where: { $0.value.tracker === tracker })?.key else { return }
        endRequest(id, .failure(error))
    }

    /// A request or a reply arrived: nothing for the stream of messages.
    func requestDelivered(_ entry: Entry, at position: Position) {
        guard entry.origin != nil else {
            // The record of one's own, which may come before its acknowledgement does.
            if entry.kind == .request, isOwn(entry), let tracker = trackers[entry.publishID] {
                requestEntered(tracker, at: position)
            }
            // The record of a reply: of this device's app, which has read what it answers, or of another device that was first.
            if entry.kind == .reply, let target = entry.target {
                let answered = Position(epoch: position.epoch, offset: target)
                outlets.requests.remove { $0.position == answered }
                outlets.answers.answered(answered)
            }
            return
        }
        if entry.kind == .request {
            guard let core else { return }
            let left = entry.expiry == 0 ? nil : Int64(clamping: entry.expiry) - Int64(clamping: serverTime)
            let request = IncomingRequest(
                sender: entry.sender, device: entry.device, time: entry.time, payload: entry.payload,
                deadline: left.map { ContinuousClock.now + .milliseconds($0) }, position: position,
                answer: outlets.answers.open(position), core: core)
            statistics.requestsDropped += outlets.requests.append(request)
            return
        }
        let place = entry.target.map { Position(epoch: position.epoch, offset: $0) }
        guard let place, let id = requestPlaces[place] else {
            statistics.lateReplies += 1
            return
        }
        endRequest(
            id, .success(Reply(sender: entry.sender, device: entry.device, time: entry.time, payload: entry.payload)))
    }
}
