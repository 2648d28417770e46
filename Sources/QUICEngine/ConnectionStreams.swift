import CQUICShim

/// What the owner does with streams.
extension QUICEngineConnection {
    /// Streams that this side may open now, before the peer allows more.
    public func streamsLeft(bidirectional: Bool) -> Int {
        guard let shim, !isClosed, streamsToReopen.isEmpty else { return 0 }
        return Int(clamping: llq_conn_streams_left(shim, bidirectional ? 1 : 0))
    }

    /// Opens a stream. nil: the peer allows no more now; `streamsAvailable` follows. Throws `closed`.
    public func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? {
        let shim = try alive()
        var id: Int64 = -1
        // Streams refused as 0-RTT must get their numbers back first.
        guard streamsToReopen.isEmpty, llq_conn_open_stream(shim, bidirectional ? 1 : 0, &id) == 0 else {
            if bidirectional { owesStreamCredit.bidirectional = true } else { owesStreamCredit.unidirectional = true }
            // What waits to be acknowledged may be what others need to end.
            endpoint.schedule(self)
            return nil
        }
        let stream = EngineStream(id: QUICStreamID(rawValue: UInt64(id)), isLocal: true)
        streams.insert(stream)
        if bidirectional { openedStreams += 1 }
        if !isServer, handshake == nil { earlyStreams.append(stream) }
        return stream.id
    }

    /// Buffers bytes to send.
    /// - Returns: how many were accepted. If fewer than offered, `streamWritable` follows; `finish` counts only when all
    ///   were accepted. Throws `closed`, `unknownStream`, `streamState`.
    public func write(
        _ bytes: UnsafeRawBufferPointer, to stream: QUICStreamID, finish: Bool
    ) throws(QUICError) -> Int {
        try write(bytes, of: nil, to: stream, finish: finish)
    }

    /// Buffers bytes to send, and may leave them where they are instead of copying them.
    /// - Parameter owner: keeps the bytes alive, in their place and unchanged as long as it is referred to: until the peer
    ///   acknowledged them. Few bytes are copied all the same, so that they don't hold on to a large piece of memory.
    /// - Returns: as `write(_:to:finish:)`.
    public func write(
        _ bytes: UnsafeRawBufferPointer, of owner: AnyObject?, to stream: QUICStreamID, finish: Bool
    ) throws(QUICError) -> Int {
        _ = try alive()
        let state = try sendingStream(stream)
        let accepted = min(sendRoom(of: state), bytes.count)
        let part = UnsafeRawBufferPointer(rebasing: bytes[0..<accepted])
        if let owner, accepted >= Self.leastLeftInPlace {
            state.sendBuffer.append(part, of: owner)
        } else if accepted > 0 {
            state.sendBuffer.append(part)
        }
        countSendBuffer(of: state, changedBy: accepted)
        if accepted < bytes.count {
            state.owesWritable = true
            if state.sendBuffer.count < settings.streamSendBuffer {
                noteWhatIsFull(for: state)
            }
        } else if finish {
            state.isFinishing = true
        }
        queueForSending(state)
        return accepted
    }

    /// A write was short though the stream's own buffer has room: whoever frees what was too full wakes the writer.
    private func noteWhatIsFull(for stream: EngineStream) {
        if addressRoom(of: stream) <= 0 {
            endpoint.counters.writesWithheld += 1
            waitForAddressRoom(stream)
        }
        if isBackgroundFull(for: stream) {
            owesWritableToBackground = true
        } else if sendBufferBytes >= settings.sendBuffer(for: stream.priority) {
            if stream.isUrgent { owesWritableToUrgent = true } else { owesWritableToAll = true }
        }
    }

    /// Fewer bytes are copied: a copy of some kilobytes costs less than what goes with an owner.
    private static let leastLeftInPlace = 8 << 10

    /// Bytes that `write` would accept now; 0 for a stream that can't be written.
    public func writableBytes(_ stream: QUICStreamID) -> Int {
        guard !isClosed, let state = streams[stream], state.sends, !state.isFinishing, state.resetCode == nil
        else { return 0 }
        return sendRoom(of: state)
    }

    /// Bytes that were written and have not left for the first time: more than a little means that the path, the congestion
    /// window or the peer's flow control holds them up.
    public func unsentBytes(_ stream: QUICStreamID) -> Int {
        guard !isClosed, let state = streams[stream], state.sends, state.resetCode == nil else { return 0 }
        return state.sendBuffer.unsent
    }

    /// Bytes that were written and wait for their acknowledgement, or for that of bytes before them (RFC 9000 section 13.3). 0 for a
    /// stream that is reset or no more.
    public func unacknowledgedBytes(_ stream: QUICStreamID) -> Int { streams[stream]?.sendBuffer.count ?? 0 }

    /// Whether the peer's flow control for a stream held it back when it was last its turn; not what holds back the connection.
    package func isHeldBackByPeer(_ stream: QUICStreamID) -> Bool { streams[stream]?.isBlocked ?? false }

    /// Asks for ``QUICConnectionEvent/streamDelivered(_:)`` once all that is written to a stream, and its end, is acknowledged. It
    /// doesn't come for a stream that is reset or that the peer stops before that.
    /// - Returns: whether that is so already; the event doesn't come then. Throws `unknownStream`, also for a stream whose two
    ///   directions are done and read.
    public func notifyDelivery(of stream: QUICStreamID) throws(QUICError) -> Bool {
        guard let state = streams[stream] else { throw unknown(stream) }
        guard !state.isDelivered else { return true }
        state.owesDelivered = true
        return false
    }

    private func sendRoom(of stream: EngineStream) -> Int {
        let room = min(
            settings.streamSendBuffer - stream.sendBuffer.count,
            settings.sendBuffer(for: stream.priority) - sendBufferBytes,
            addressRoom(of: stream))
        return max(0, stream.isBackground ? min(room, settings.backgroundSendBuffer - backgroundBytes) : room)
    }

    private func isBackgroundFull(for stream: EngineStream) -> Bool {
        stream.isBackground && backgroundBytes >= settings.backgroundSendBuffer
    }

    /// Copies received bytes out, in order, and lets the peer send as many more. What was received before the connection
    /// closed can still be read. Throws `unknownStream`, also after the end was read.
    public func read(
        _ stream: QUICStreamID, into buffer: UnsafeMutableRawBufferPointer
    ) throws(QUICError) -> StreamRead {
        try read(stream) { bytes in
            let part = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, buffer.count)])
            buffer.copyMemory(from: part)
            return part.count
        }
    }

    /// Shows received bytes, in order, where they lie, and takes as many as the closure says. As `read(_:into:)` else.
    /// - Parameters:
    ///   - stream: one that receives.
    ///   - body: gets all that is there, perhaps nothing, and returns how many bytes it is done with. It must not
    ///     call the connection.
    public func read(
        _ stream: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int
    ) throws(QUICError) -> StreamRead {
        guard let state = streams[stream] else { throw unknown(stream) }
        guard state.receives else {
            throw QUICError(.streamState, "\(stream) only sends", advice: "Read from streams the peer opened.")
        }
        let count = body(state.receiveBuffer.bytes)
        precondition(count >= 0 && count <= state.receiveBuffer.count, "a reader takes what it was shown")
        let finished = state.receiveBuffer.consume(count, pool: context.storage.memory)
        if state.receiveBuffer.count == 0 { state.readableReported = false }
        if let shim, count > 0 {
            if endpoint.isFull {
                withholdWindow(UInt64(count), of: state)
            } else {
                if !state.isClosed { llq_conn_extend_stream(shim, Int64(stream.rawValue), UInt64(count)) }
                llq_conn_extend_connection(shim, UInt64(count))
                // Who takes what came at once leaves the peer room until something is written anyway.
                takenSinceWrite += UInt64(count)
                endpoint.schedule(self, quietly: takenSinceWrite < settings.streamWindow / 4)
            }
        }
        forgetIfDone(state)
        return StreamRead(count: count, finished: finished)
    }

    /// All connections together hold too much: what was read lets the peer send more later.
    private func withholdWindow(_ count: UInt64, of stream: EngineStream) {
        stream.withheldWindow += count
        if withheldWindow == 0 { endpoint.noteWithheld(self) }
        withheldWindow += count
    }

    /// Lets the peer send what was withheld.
    func grantWithheldWindow() {
        let count = withheldWindow
        withheldWindow = 0
        guard let shim, count > 0 else { return }
        for stream in streams.all where stream.withheldWindow > 0 {
            if !stream.isClosed { llq_conn_extend_stream(shim, Int64(stream.id.rawValue), stream.withheldWindow) }
            stream.withheldWindow = 0
        }
        llq_conn_extend_connection(shim, count)
        endpoint.schedule(self)
    }

    /// Bytes that `read` would return.
    public func readableBytes(_ stream: QUICStreamID) -> Int { streams[stream]?.receiveBuffer.count ?? 0 }

    /// Whether bytes that are readable now came in 0-RTT packets: an attacker may have sent them again.
    public func isEarly(_ stream: QUICStreamID) -> Bool { streams[stream]?.receiveBuffer.isEarly ?? false }

    /// Changes when a stream may send, among those of this connection; takes effect with the next packet. Does nothing on a
    /// stream that isn't sending.
    public func setPriority(_ priority: StreamPriority, of stream: QUICStreamID) {
        guard let state = streams[stream], state.sends, state.priority != priority else { return }
        let wasQueued = state.isQueued
        if wasQueued { sendQueue.remove(state) }
        let wasBackground = state.isBackground
        let kind = state.presentKind
        state.priority = priority
        if wasBackground != state.isBackground {
            backgroundBytes += wasBackground ? -state.sendBuffer.count : state.sendBuffer.count
            reportWritableToBackground()
        }
        // What held it back may hold it back no more.
        if wasBackground != state.isBackground || kind != state.presentKind { reportWritable(state) }
        if wasQueued { sendQueue.append(state) }
    }

    /// A stream's priority; nil if there is no such stream.
    public func priority(of stream: QUICStreamID) -> StreamPriority? { streams[stream]?.priority }

    /// Abandons our sending side; what wasn't sent is dropped. Does nothing on a stream that isn't sending.
    public func reset(_ stream: QUICStreamID, code: UInt64) {
        guard let shim, !isClosed, let state = streams[stream], state.sends, state.resetCode == nil,
            !state.isClosed
        else { return }
        let code = ApplicationCode.carried(code)
        endSending(on: state, code: code)
        if !state.awaitsReopening { _ = llq_conn_reset_stream(shim, Int64(stream.rawValue), code) }
        afterCall()
    }

    /// Asks the peer to send no more; what comes is dropped. Does nothing on a stream that isn't receiving.
    public func stopSending(_ stream: QUICStreamID, code: UInt64) {
        guard let shim, !isClosed, let state = streams[stream], state.receives, state.stopCode == nil,
            !state.peerReset
        else { return }
        let code = ApplicationCode.carried(code)
        state.stopCode = code
        if !state.isClosed, !state.awaitsReopening {
            _ = llq_conn_stop_sending(shim, Int64(stream.rawValue), code)
        }
        dropUnread(state)
        // ngtcp2 0.12 tells nothing of such a stream any more, its end neither. When STOP_SENDING is lost the end may come all the
        // same: the peer gets its credit back now.
        if !state.sends, llq_keeps_stopped_streams() != 0 { close(state) } else { forgetIfDone(state) }
        afterCall()
    }

    // MARK: -

    func unknown(_ stream: QUICStreamID) -> QUICError {
        QUICError(
            .unknownStream, "There is no \(stream)", advice: "It was never opened, or it is closed and read to its end."
        )
    }

    private func sendingStream(_ id: QUICStreamID) throws(QUICError) -> EngineStream {
        guard let state = streams[id] else { throw unknown(id) }
        guard state.sends, !state.isFinishing, state.resetCode == nil, !state.isClosed else {
            throw QUICError(
                .streamState, "\(id) can't be written: it only receives, or was finished or reset",
                advice: "Open another stream.")
        }
        return state
    }

    /// Bidirectional streams that the peer may have opened by now, those that are over among them: it has been told of no more.
    public var peerBidirectionalStreamLimit: UInt64 {
        settings.maxBidirectionalStreams + raisedStreams + renewedStreams
    }

    /// Lets the peer have more bidirectional streams open at a time than ``TransportSettings/maxBidirectionalStreams`` said, by
    /// MAX_STREAMS (RFC 9000 section 4.6): for what depends on the protocol that the handshake chose.
    /// - Parameter limit: how many, at most 2^20. A limit never falls: with fewer than there are nothing happens.
    public func raiseBidirectionalStreamLimit(to limit: UInt64) {
        let limit = min(limit, TransportSettings.largestStreamLimit)
        let current = settings.maxBidirectionalStreams + raisedStreams
        guard let shim, !isClosed, limit > current else { return }
        raisedStreams += limit - current
        llq_conn_extend_max_streams(shim, 1, Int(limit - current))
        endpoint.schedule(self)
    }

    func queueForSending(_ stream: EngineStream) {
        if enqueue(stream) { endpoint.schedule(self) }
    }

    /// Queues a stream, without asking for a turn: what a packet left over waits for one that comes.
    @discardableResult
    func enqueue(_ stream: EngineStream) -> Bool {
        guard stream.hasSomethingToSend, !stream.isQueued, !stream.isBlocked, !stream.awaitsReopening else {
            return false
        }
        stream.isQueued = true
        sendQueue.append(stream)
        return true
    }

    /// Our sending side ends by a reset, with this code unless there is one already: what ngtcp2 doesn't have will never leave, and
    /// gives its room in the send buffers to others.
    func endSending(on stream: EngineStream, code: UInt64) {
        if stream.resetCode == nil { stream.resetCode = code }
        let dropped = stream.sendBuffer.dropUnsent()
        guard dropped > 0 else { return }
        countSendBuffer(of: stream, changedBy: -dropped)
        reportWritableToOthers()
    }

    /// Gives up unread bytes; the peer may send as many more on other streams.
    func dropUnread(_ stream: EngineStream) {
        if context.sink === stream { context.sink = nil }
        let dropped = stream.receiveBuffer.discard(pool: context.storage.memory)
        stream.readableReported = false
        if let shim, dropped > 0 { llq_conn_extend_connection(shim, UInt64(dropped)) }
    }

    func forgetIfDone(_ stream: EngineStream) {
        guard stream.isClosed, stream.isReadOut, streams.remove(stream) else { return }
        if context.sink === stream { context.sink = nil }
        guard isPeers(stream.id) else {
            if stream.id.isBidirectional { openedStreams -= 1 }
            return
        }
        if let shim, !stream.id.isBidirectional, llq_conn_has_stream(shim, Int64(stream.id.rawValue)) != 0 {
            peerStreamRecords += 1
        }
        if stream.closeWasTaken { renewCredit(of: stream.id) }
    }

    private func isPeers(_ stream: QUICStreamID) -> Bool { stream.isClientInitiated == isServer }

    /// The owner takes the last event of a stream from the queue. The peer gets credit for another one no earlier: as many events wait
    /// as its limits allow, and who resets what he opens is never ahead of the owner.
    func closeIsTaken(of id: QUICStreamID) {
        guard isPeers(id) else { return }
        // Where it is known yet, its end is to be read first.
        if let stream = streams[id] { stream.closeWasTaken = true } else { renewCredit(of: id) }
    }

    /// Lets the peer open another stream in place of one that is over.
    private func renewCredit(of stream: QUICStreamID) {
        guard let shim else { return }
        if stream.isBidirectional { renewedStreams += 1 }
        llq_conn_extend_max_streams(shim, stream.isBidirectional ? 1 : 0, 1)
        endpoint.schedule(self)
    }

    private func afterCall() {
        processNotes()
        endpoint.schedule(self)
    }
}
