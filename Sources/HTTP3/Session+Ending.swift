internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

// GOAWAY (RFC 9114 section 5.2), and what is too slow.

extension Session {
    /// The largest request stream that there can be: a first GOAWAY with it says that the end is near.
    private static let lastRequestStream: UInt64 = (1 << 62) - 4
    private static let shortestNotice = TimeAmount.milliseconds(20)
    /// What the client has to get before the end is waited for this long in all, and looked after this often: a close sends nothing again
    /// that was lost.
    static let longestFarewell = TimeAmount.seconds(1)
    private static let farewellStep = TimeAmount.milliseconds(5)

    /// Takes no new requests, lets those under way finish, and closes with H3_NO_ERROR.
    func drain() {
        guard state == .starting || state == .open else { return }
        guard state == .open else { return close(.noError) }
        state = .draining
        guard isServer else {
            // A client's names a push, and there is none.
            sendGoaway(0)
            // What waits for a stream can go elsewhere at once.
            onProgress?()
            return closeIfDrained()
        }
        guard !exchanges.isEmpty || isHandshakeComplete else { return close(.noError) }
        sendGoaway(Self.lastRequestStream)
        // Requests that left before the client saw the notice are taken; the final word comes two round trips later.
        let rtt = connection.statistics()?.smoothedRTT.nanoseconds ?? 0
        let notice = max(TimeAmount.nanoseconds(Int64(clamping: rtt)) * 2, Self.shortestNotice)
        sendFinalGoaway(in: notice)
    }

    /// Requests that leave before the client has the first one are taken.
    private func sendFinalGoaway(in notice: TimeAmount) {
        finalGoaway = connection.eventLoop.assumeIsolated().scheduleTask(in: notice) {
            self.finalGoaway = nil
            guard self.state == .draining else { return }
            if self.isOutboundUnderWay, self.mayWait(for: Self.shortestNotice) {
                return self.sendFinalGoaway(in: Self.shortestNotice)
            }
            self.sendGoaway(self.nextRequestStream)
            self.closeIfDrained()
        }
    }

    /// Whether there is patience left for that; less by so much then.
    private func mayWait(for step: TimeAmount) -> Bool {
        guard patience >= step else { return false }
        patience = patience - step
        return true
    }

    /// Whether the peer may lack what we said on the control stream, or what it needs to read our header sections.
    private var isOutboundUnderWay: Bool {
        outbound.control.readableBytes > 0 || outbound.encoder.readableBytes > 0
            || [outbound.controlStream, outbound.encoderStream].contains {
                $0.map { connection.unacknowledgedBytes($0) > 0 } ?? false
            }
    }

    private func sendGoaway(_ id: UInt64) {
        assert(id <= sentGoaway ?? id, "GOAWAY never names a larger stream")
        sentGoaway = id
        var payload = ByteBuffer()
        payload.writeVarint(id)
        outbound.control.writeFrameHeader(FrameType.goaway, length: payload.readableBytes)
        outbound.control.writeBuffer(&payload)
        flushOutbound()
    }

    func receivedGoaway(_ id: UInt64) throws(Violation) {
        guard isServer || id & 3 == 0 else {
            throw .connection(.idError, "GOAWAY names no request stream")
        }
        guard id <= receivedGoaway ?? id else {
            throw .connection(.idError, "GOAWAY names a larger stream than before")
        }
        receivedGoaway = id
        guard !isServer else { return }
        if state == .open { state = .draining }
        // What the server won't process can be sent elsewhere; what it has begun to answer it does process, whatever it says.
        for exchange in exchanges.values where exchange.id.rawValue >= id && exchange.isUnanswered {
            meter.count(.rejected)
            exchange.abandon(.requestCancelled, .goingAway)
        }
        onProgress?()
    }

    /// Closes once nothing is under way, and the client has the last GOAWAY and what it needs to read the answers that it has.
    func closeIfDrained() {
        guard state == .draining, finalGoaway == nil, !isBusy else { return }
        guard isServer, isOutboundUnderWay else { return close(.noError) }
        guard farewell == nil else { return }
        guard mayWait(for: Self.farewellStep) else { return close(.noError) }
        farewell = connection.eventLoop.assumeIsolated().scheduleTask(in: Self.farewellStep) {
            self.farewell = nil
            self.closeIfDrained()
        }
    }

    // MARK: Places

    func workBegan() {
        working += 1
        if working == 1 { onWork?(true) }
    }

    func workEnded() {
        working -= 1
        if working == 0 { onWork?(false) }
    }

    /// A stream took bytes of an answer. As long as that goes on, the connection is none for which nothing is done.
    func answerAdvanced() {
        guard let onWork, working == 0, state == .open else { return }
        let now = NIODeadline.now()
        guard now - advancedAt >= .seconds(1) else { return }
        advancedAt = now
        onWork(false)
    }

    /// Makes place for another connection, unless a request is worked on: drains, and waits for no answer that its client holds up, which
    /// it may never take.
    func giveWay() {
        guard isServer, state != .closed, working == 0 else { return }
        for exchange in exchanges.values where !exchange.isUnderWay { exchange.isLeftBehind = true }
        patience = .zero
        drain()
        closeIfDrained()
    }

    // MARK: Time

    /// Begins to count the time without a request. A request stops nothing: the timer sees that there is one.
    func watchIdleness() {
        guard isServer, let timeout = limits.idleTimeout, state == .starting || state == .open else { return }
        idleSince = .now()
        guard idleTimer == nil else { return }
        scheduleIdleCheck(timeout)
    }

    private func scheduleIdleCheck(_ timeout: TimeAmount) {
        let interval = TimeAmount.nanoseconds(max(timeout.nanoseconds / 4, 1_000_000))
        idleTimer = connection.eventLoop.assumeIsolated().scheduleTask(in: interval) {
            self.idleTimer = nil
            self.checkIdleness(.now())
            guard self.state == .starting || self.state == .open else { return }
            self.scheduleIdleCheck(timeout)
        }
    }

    /// Drains a connection that has had no request for its time.
    func checkIdleness(_ now: NIODeadline) {
        guard let timeout = limits.idleTimeout, state == .starting || state == .open else { return }
        if isBusy { idleSince = now }
        if now - idleSince >= timeout { drain() }
    }

    /// One timer for all exchanges, as long as there are any: limits are kept to within a quarter of the shortest.
    func scheduleSweep() {
        guard isServer, sweep == nil, state != .closed else { return }
        let shortest = min(limits.requestHeadTimeout, limits.bodyTimeout, limits.writeTimeout)
        let interval = min(max(TimeAmount.nanoseconds(shortest.nanoseconds / 4), .milliseconds(5)), .seconds(1))
        sweep = connection.eventLoop.assumeIsolated().scheduleTask(in: interval) {
            self.sweep = nil
            guard self.state != .closed, !self.exchanges.isEmpty else { return }
            self.checkDeadlines(.now())
            self.scheduleSweep()
        }
    }

    /// Ends what is too slow.
    func checkDeadlines(_ now: NIODeadline) {
        var waiting = 0
        for exchange in exchanges.values {
            exchange.noteTaken()
            if exchange.waitsForClient { waiting += 1 }
        }
        pace.look(now, waiting: waiting, least: limits.writeProgress)
        for exchange in exchanges.values { exchange.checkDeadline(now) }
    }
}

extension Exchange {
    /// Server: a handler has the request.
    func beginWork() {
        guard !isWorkedOn else { return }
        (isWorkedOn, isLeftBehind) = (true, false)
        session.workBegan()
    }

    /// Server: its answer was begun, or is not wanted any more.
    func endWork() {
        guard isWorkedOn else { return }
        isWorkedOn = false
        session.workEnded()
    }
}
