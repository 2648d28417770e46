internal import NIOCore
internal import QUICEngine

/// A stream that was opened, and how its tasks reach it.
struct OpenedStream: Sendable {
    let id: QUICStreamID
    let handover: StreamHandover
}

/// The loop's side of a ``QUICStream``.
///
/// ```
///  reading:  open --end read--> over        writing:  open --finish--> over
///              \--reset, stopSending--> over            \--reset, peer's STOP_SENDING--> over
/// ```
/// How each direction ended is known to the ``StreamHandover``, which the stream's tasks look at, too. A stream that the
/// application let go of stays as long as the engine has no room for all that was written before `finish`.
final class AsyncStreamState {
    let id: QUICStreamID
    let handover = StreamHandover()
    /// What tasks left in the handover and the engine had no room for, in order, and whether the stream ends behind it.
    private var backlog: (buffers: [ByteBuffer], finish: Bool) = ([], false)
    /// A write that waits for room.
    private var writer: (bytes: ByteBuffer, waiter: Waiter<Void>)?
    private var isClosed = false
    /// The application let go of it.
    private(set) var isReleased = false
    private var lastReadWasEarly = false
    /// Those who wait until the peer has everything.
    private var deliveryWaiters: [Waiter<Void>] = []
    /// The engine took no more of what was written, or not the end behind it.
    private var lostWrites = false

    init(id: QUICStreamID, connection: QUICLoopConnection) {
        self.id = id
        let isOurs = id.isClientInitiated != connection.isServer
        if !id.isBidirectional {
            if isOurs {
                handover.endReading(.failure(Self.wrongDirection))
            } else {
                handover.endWriting(Self.wrongDirection)
            }
        }
        if handover.writeEnd == nil { handover.setRoom(connection.writableBytes(id)) }
    }

    var opened: OpenedStream { OpenedStream(id: id, handover: handover) }

    // MARK: Reading

    /// What is there to be read; nil: nothing, and the end wasn't seen yet either.
    func readAtOnce(_ connection: QUICLoopConnection) -> Result<ByteBuffer?, any Error>? {
        if handover.isRead { return .failure(StreamHandover.busy("reads from")) }
        if let end = handover.readEnd { return end }
        return connection.readableBytes(id) > 0 ? resultOfRead(connection) : nil
    }

    /// Serves a waiting reader; bytes that nobody asked for stay in the engine, and the peer's window shut.
    func readable(_ connection: QUICLoopConnection) {
        if let waiter = handover.takeReader() { read(waiter, connection) }
    }

    /// A reader waits for what comes next.
    private func arm(_ waiter: Waiter<ByteBuffer?>) {
        handover.setLoopHasMore(false)
        if case .finished(let end) = handover.arm(waiter) { waiter.finish(end) }
    }

    func read(_ waiter: Waiter<ByteBuffer?>, _ connection: QUICLoopConnection) {
        do throws(QUICError) {
            // Something has to be there before the waiter is claimed: a claimed one must be resumed.
            if connection.readableBytes(id) > 0 {
                guard waiter.claim() else { return }
                waiter.resume(with: resultOfRead(connection))
            } else if try connection.read(id, maximumBytes: 0).finished {
                handover.endReading(.success(nil))
                waiter.finish(.success(nil))
            } else {
                arm(waiter)
            }
        } catch {
            // With the code of a reset.
            if awaitsEvent(error) {
                arm(waiter)
            } else if handover.readEnd != nil {
                // It was told while the read was on its way here.
                handover.serve(waiter)
            } else {
                waiter.finish(.failure(connection.worded(error)))
            }
        }
    }

    /// Whether a call failed because the engine is ahead of its events: it has ended a stream, or forgotten one whose two directions
    /// are done, and the event that says why is on its way.
    private func awaitsEvent(_ error: QUICError) -> Bool {
        !isClosed && (error.code == .streamState || error.code == .unknownStream)
    }

    private func resultOfRead(_ connection: QUICLoopConnection) -> Result<ByteBuffer?, any Error> {
        do throws(QUICError) {
            // Bytes behind early ones count as early with them.
            let isEarly = connection.isServer && connection.isEarly(id)
            if isEarly != lastReadWasEarly {
                lastReadWasEarly = isEarly
                handover.setLastReadWasEarly(isEarly)
            }
            let read = try connection.read(id, maximumBytes: AsyncConnectionState.readSize)
            if read.finished {
                handover.endReading(.success(nil))
            } else {
                handover.setLoopHasMore(connection.readableBytes(id) > 0)
            }
            return .success(read.bytes)
        } catch {
            return .failure(QUICTransportError(error))
        }
    }

    func wasReset(code: UInt64) {
        endReading(
            QUICTransportError(
                .streamReset, "the peer abandoned the stream", cause: "application code \(code)",
                advice: "What was read before may be incomplete.", applicationCode: code))
    }

    func stopSending(code: UInt64, _ connection: QUICLoopConnection) {
        guard handover.readEnd == nil else { return }
        connection.stopSending(id, code: code)
        endReading(QUICTransportError(.streamState, "reading was stopped here", advice: "Read before stopping."))
    }

    private func endReading(_ error: QUICTransportError) { handover.endReading(.failure(error)) }

    // MARK: Writing

    /// Whether something was written, or the end, that the engine doesn't have yet and may take.
    var owesWrites: Bool { !isClosed && (!backlog.buffers.isEmpty || backlog.finish) }

    /// Writes what tasks left in the handover.
    func drain(_ connection: QUICLoopConnection) {
        let (buffers, finish) = handover.takeQueued()
        backlog.buffers += buffers
        backlog.finish = backlog.finish || finish
        guard !backlog.buffers.isEmpty || backlog.finish else { return }
        do throws(QUICError) {
            while !backlog.buffers.isEmpty {
                try connection.write(&backlog.buffers[0], to: id)
                // The stream becomes writable, then it goes on.
                guard backlog.buffers[0].readableBytes == 0 else { return handover.setRoom(0) }
                backlog.buffers.removeFirst()
            }
            if backlog.finish {
                var nothing = ByteBuffer()
                backlog.finish = false
                try connection.write(&nothing, to: id, finish: true)
            }
        } catch {
            // The peer wants no more, or the stream is gone: its event is on the way, and later writes learn why.
            backlog = ([], false)
            lostWrites = true
        }
        handover.setRoom(connection.writableBytes(id))
    }

    func write(_ bytes: ByteBuffer, _ waiter: Waiter<Void>, _ connection: QUICLoopConnection) {
        drain(connection)
        // Cancelled on its way here: `cancelWrite` came before it and found nothing.
        if writer == nil, !waiter.isWaiting { return reset(code: QUICStream.cancellationCode, connection) }
        if let end = handover.writeEnd { return waiter.finish(.failure(end)) }
        guard writer == nil else { return waiter.finish(.failure(StreamHandover.busy("writes to"))) }
        writer = (bytes, waiter)
        handover.setWriterWaits(true)
        writeWaiting(connection)
    }

    /// - Returns: whether all was taken; false: nothing was, and whoever waits learns why.
    func writeAtOnce(_ bytes: ByteBuffer, _ connection: QUICLoopConnection) -> Bool {
        drain(connection)
        guard writer == nil, backlog.buffers.isEmpty, handover.writeEnd == nil,
            connection.writableBytes(id) >= bytes.readableBytes
        else { return false }
        var rest = bytes
        guard (try? connection.write(&rest, to: id)) != nil else { return false }
        handover.setRoom(connection.writableBytes(id))
        return true
    }

    func finish(_ connection: QUICLoopConnection) throws {
        switch handover.finish() {
        case .taken: drain(connection)
        case .failed(let error): throw error
        case .mustWait: throw StreamHandover.busy("writes to")
        }
    }

    func writable(_ connection: QUICLoopConnection) {
        drain(connection)
        writeWaiting(connection)
    }

    private func writeWaiting(_ connection: QUICLoopConnection) {
        guard backlog.buffers.isEmpty else { return }
        guard var pending = writer else { return handover.setRoom(connection.writableBytes(id)) }
        writer = nil
        do throws(QUICError) {
            try connection.write(&pending.bytes, to: id)
            if pending.bytes.readableBytes == 0 {
                handover.setRoom(connection.writableBytes(id))
                handover.setWriterWaits(false)
                pending.waiter.finish(.success(()))
            } else {
                writer = pending
            }
        } catch {
            // With the code of the peer's STOP_SENDING.
            if awaitsEvent(error) {
                writer = pending
            } else {
                handover.setWriterWaits(false)
                pending.waiter.finish(.failure(connection.worded(error)))
            }
        }
    }

    // MARK: Delivery

    func waitDelivered(_ waiter: Waiter<Void>, _ connection: QUICLoopConnection) {
        drain(connection)
        if handover.isDelivered { return waiter.finish(.success(())) }
        if let end = handover.writeEnd, end != StreamHandover.finished { return waiter.finish(.failure(end)) }
        do throws(QUICError) {
            if try connection.notifyDelivery(of: id) {
                wasDelivered()
                waiter.finish(.success(()))
            } else {
                deliveryWaiters.append(waiter)
            }
        } catch {
            if awaitsEvent(error) {
                deliveryWaiters.append(waiter)
            } else {
                // The engine forgets a stream whose two directions are done: this one ended well, or its end was told.
                waiter.finish(isClosed && !lostWrites ? .success(()) : .failure(connection.worded(error)))
            }
        }
    }

    func wasDelivered() {
        handover.setDelivered()
        for waiter in deliveryWaiters { waiter.finish(.success(())) }
        deliveryWaiters.removeAll()
    }

    private func failDelivery(_ error: QUICTransportError) {
        for waiter in deliveryWaiters { waiter.finish(.failure(error)) }
        deliveryWaiters.removeAll()
    }

    /// Tasks that were cancelled wait for nothing any more.
    func forgetCancelled() { deliveryWaiters.removeAll { !$0.isWaiting } }

    /// Both directions are done for the engine; what is unread can still be read.
    func closed(_ connection: QUICLoopConnection) {
        isClosed = true
        readable(connection)
        if writer != nil || handover.writeEnd == nil { endWriting(Self.over) }
        // Whom the engine owes no word, because it had forgotten the stream before they asked: it ended well, or not all was taken.
        guard !deliveryWaiters.isEmpty else { return }
        if lostWrites { failDelivery(Self.over) } else { wasDelivered() }
    }

    func reset(code: UInt64, _ connection: QUICLoopConnection) {
        let end = handover.writeEnd
        guard end == nil || end == StreamHandover.finished else { return }
        connection.reset(id, code: code)
        endWriting(QUICTransportError(.streamState, "the stream was reset here", advice: "Open another."))
    }

    /// Ends what isn't over: what was finished, or read to its end, stays as it is.
    func giveUp(code: UInt64, _ connection: QUICLoopConnection) {
        if handover.writeEnd == nil { reset(code: code, connection) }
        stopSending(code: code, connection)
    }

    /// A task that wrote was cancelled. If it is the one whose bytes are half written, nobody could go on from there; another's never
    /// began.
    func cancelWrite(code: UInt64, _ connection: QUICLoopConnection) {
        guard let pending = writer, !pending.waiter.isWaiting else { return }
        writer = nil
        // In this order: a write that finds nobody waiting finds the end.
        reset(code: code, connection)
        handover.setWriterWaits(false)
    }

    func wasStopped(code: UInt64) {
        endWriting(
            QUICTransportError(
                .stopSending, "the peer wants nothing more on this stream", cause: "application code \(code)",
                advice: "Stop writing.", applicationCode: code))
    }

    private func endWriting(_ error: QUICTransportError) {
        backlog = ([], false)
        failDelivery(error)
        handover.endWriting(error)
        handover.setWriterWaits(false)
        writer?.waiter.finish(.failure(error))
        writer = nil
    }

    // MARK: The end

    func fail(_ error: QUICTransportError, _ connection: QUICLoopConnection) {
        endReading(error, of: connection)
        if isKnownToBeDelivered(connection) { wasDelivered() }
        if handover.writeEnd == nil || writer != nil { endWriting(error) }
        failDelivery(error)
    }

    /// Whether the engine, which goes, has learnt that the peer has everything, and nobody had asked.
    private func isKnownToBeDelivered(_ connection: QUICLoopConnection) -> Bool {
        guard handover.writeEnd == StreamHandover.finished, !owesWrites, !lostWrites else { return false }
        // It forgets a stream whose two directions are done.
        return isClosed || (try? connection.engine?.notifyDelivery(of: id)) ?? false
    }

    /// Takes what came before the connection closed out of the engine, which goes.
    private func endReading(_ error: QUICTransportError, of connection: QUICLoopConnection) {
        guard handover.readEnd == nil else { return }
        var leftovers: [StreamHandover.Leftover] = []
        var isFinished = false
        do throws(QUICError) {
            while !isFinished {
                let isEarly = connection.isServer && connection.isEarly(id)
                let read = try connection.read(id, maximumBytes: AsyncConnectionState.readSize)
                isFinished = read.finished
                guard read.bytes.readableBytes > 0 else { break }
                leftovers.append(StreamHandover.Leftover(bytes: read.bytes, isEarly: isEarly))
            }
        } catch {
            // The engine knows nothing of it any more: nothing was left.
        }
        handover.endReading(isFinished ? .success(nil) : .failure(error), behind: leftovers)
    }

    func abandon(_ connection: QUICLoopConnection) {
        isReleased = true
        drain(connection)
        if handover.writeEnd == nil { connection.reset(id, code: 0) }
        if handover.readEnd == nil { connection.stopSending(id, code: 0) }
    }

    private static let over = QUICTransportError(.streamState, "the stream is over", advice: "Open another.")
    private static let wrongDirection = QUICTransportError(
        .streamState, "a unidirectional stream is used against its direction", advice: "Open a bidirectional stream.")
}
