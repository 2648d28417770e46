import CQUICShim

/// A connection writes its packets.
extension QUICEngineConnection {
    /// What one packet came to.
    private enum Written {
        case packet(length: Int, path: QUICPath, ecn: ECNCodepoint)
        case nothing
        case failed(Int32)
    }

    private static let maxSegments = 64
    private static let maxRunLength = 65_000
    private static let maxVectors = 16
    /// How late owners' timers may be: a millisecond, as RFC 9002 section 6.1.2 has it.
    private static let timerGrain: UInt64 = 1_000_000

    /// Writes one GSO run.
    /// - Returns: the run, or nil; and whether another may follow at once.
    func produce(into buffer: UnsafeMutableRawBufferPointer, now: QUICInstant) -> (run: QUICTransmit?, more: Bool) {
        guard let shim else { return (nil, false) }
        advance(to: now)
        guard !waitsForCompany(shim) else { return (nil, false) }
        acknowledgesBy = nil
        takenSinceWrite = 0
        defer { writesAtOnce = false }
        if let held = heldPacket, held.bytes.count <= buffer.count {
            heldPacket = nil
            buffer.copyBytes(from: held.bytes)
            return (
                QUICTransmit(path: held.path, ecn: held.ecn, segmentSize: held.bytes.count, length: held.bytes.count),
                true
            )
        }
        if let instant = pacedUntil, instant <= self.now {
            // ngtcp2 names the instant until it is told that it has passed.
            pacedUntil = nil
            let result = llq_conn_handle_expiry(shim, self.now.nanoseconds)
            if result != 0 {
                processNotes()
                fail(result)
                return (nil, false)
            }
        }
        let isPaced = pacedUntil != nil
        let (run, more) = fill(buffer, shim: shim)
        // An error while writing ends the connection.
        if self.shim != nil { notePacing(shim, mayHaveMore: more || isPaced) }
        processNotes()
        guard pendingClose != nil, self.shim != nil else { return (run, more) }
        if run != nil { return (run, true) }
        return lingers ? (nil, false) : (finishClose(into: buffer), false)
    }

    /// Notes until when what came may wait to be acknowledged. ngtcp2 names one instant for all of its timers, and that of its own
    /// acknowledgement would be the first: while that waits the others are as they were before.
    /// - Parameter others: when the first of them is due.
    func noteUnacknowledged(others: UInt64) {
        guard let shim, llq_conn_acks_wait(shim) != 0 else { return }
        // A timer may be late by its grain.
        let longest = settings.maxAckDelay.nanoseconds
        let delay = min(longest - min(longest, Self.timerGrain), llq_conn_ack_delay(shim))
        acknowledgesBy = min(now.advanced(byNanoseconds: delay), QUICInstant(nanoseconds: others))
    }

    /// Whether there is nothing to write but acknowledgements, and these may still go along with something.
    private func waitsForCompany(_ shim: OpaquePointer) -> Bool {
        guard let acknowledgesBy, now < acknowledgesBy, !writesAtOnce else { return false }
        // What waits for streams waits for others to end, for which the peer may need what is acknowledged.
        return sendQueue.isEmpty && datagramsToSend.isEmpty && heldPacket == nil && pendingClose == nil
            && !owesStreamCredit.bidirectional && !owesStreamCredit.unidirectional && llq_conn_acks_wait(shim) != 0
    }

    /// ngtcp2 paces the next packet from here on, and wants to be woken for it. Where nothing waits to be sent, nobody is:
    /// each answer on a short path would cost a timer.
    private func notePacing(_ shim: OpaquePointer, mayHaveMore: Bool) {
        let before = llq_conn_expiry(shim)
        llq_conn_update_tx_time(shim, now.nanoseconds)
        let after = llq_conn_expiry(shim)
        if after < before { pacedUntil = QUICInstant(nanoseconds: after) }
        let isQuiet =
            !mayHaveMore && sendQueue.isEmpty && datagramsToSend.isEmpty && pendingClose == nil
            && llq_conn_owes_packet(shim) == 0
        expiry = isQuiet ? before : after
    }

    /// A close waits for what pacing or the congestion window holds back, for two probe timeouts at most.
    private var lingers: Bool {
        guard let end = lingersUntil, !sendQueue.isEmpty || !datagramsToSend.isEmpty else { return false }
        return now < end
    }

    /// When a close waits no longer; nil: nobody has closed.
    var lingersUntil: QUICInstant? {
        guard let shim, let pendingClose else { return nil }
        return pendingClose.at.advanced(byNanoseconds: 2 * llq_conn_pto(shim))
    }

    private func fill(_ buffer: UnsafeMutableRawBufferPointer, shim: OpaquePointer) -> (QUICTransmit?, Bool) {
        llq_conn_watch_size(shim, now.nanoseconds)
        let largest = llq_conn_max_payload(shim)
        let pathLargest = llq_conn_path_max_payload(shim)
        let quantum = min(Self.maxSegments, max(1, llq_conn_send_quantum(shim) / max(largest, 1)))
        if let bulk = fillWithOneStream(buffer, shim: shim, largest: largest, quantum: quantum) { return bulk }
        var run: QUICTransmit?
        var segments = 0
        while true {
            let offset = run?.length ?? 0
            let room = min(buffer.count, Self.maxRunLength) - offset
            guard room >= largest || run == nil else { return (run, true) }
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<offset + min(room, largest)])
            switch writePacket(into: target, shim: shim) {
            case .nothing:
                return (run, false)
            case .failed(let code):
                fail(code)
                return (run, false)
            case .packet(let length, let path, let ecn):
                bytesSent += UInt64(length)
                packetsSent += 1
                guard var current = run else {
                    run = QUICTransmit(path: path, ecn: ecn, segmentSize: length, length: length)
                    segments = 1
                    if segments >= quantum { return (run, true) }
                    continue
                }
                // A probe larger than the path's packets travels alone.
                let fits =
                    current.path == path && current.ecn == ecn && length <= current.segmentSize
                    && (current.segmentSize <= pathLargest || length == current.segmentSize)
                guard fits else {
                    heldPacket = (Array(target[0..<length]), path, ecn)
                    return (run, true)
                }
                current.length += length
                run = current
                segments += 1
                if segments >= quantum || length < current.segmentSize { return (run, true) }
            }
        }
    }

    /// A transfer on a single stream: its packets are written in one go.
    /// - Returns: nil if there is something else to send, or not enough of the stream.
    private func fillWithOneStream(
        _ buffer: UnsafeMutableRawBufferPointer, shim: OpaquePointer, largest: Int, quantum: Int
    ) -> (QUICTransmit?, Bool)? {
        guard datagramsToSend.isEmpty, let stream = sendQueue.only, stream.hasSomethingToSend, !stream.isBlocked,
            stream.sendBuffer.unsent >= 4 * largest, let base = buffer.baseAddress
        else { return nil }
        var run = llq_run()
        withUnsafeTemporaryAllocation(of: llq_vec.self, capacity: Self.maxVectors) { vectors in
            let (count, bytes) = stream.sendBuffer.unsentVectors(vectors, enough: Self.maxRunLength)
            llq_conn_write_run(
                shim, &run, base.assumingMemoryBound(to: UInt8.self), min(buffer.count, Self.maxRunLength), quantum,
                Int64(stream.id.rawValue), vectors.baseAddress, count, bytes, now.nanoseconds)
        }
        stream.sendBuffer.handOver(run.accepted)
        let packets = run.segments + (run.extra > 0 ? 1 : 0)
        bytesSent += UInt64(run.length + run.extra)
        packetsSent += UInt64(packets)
        if run.extra > 0 {
            let extra = UnsafeRawBufferPointer(
                rebasing: UnsafeRawBufferPointer(buffer)[run.length..<run.length + run.extra])
            heldPacket = (Array(extra), QUICPath(run.extra_path), mark(run.extra_ecn))
        }
        let transmit =
            run.segments == 0
            ? nil
            : QUICTransmit(
                path: QUICPath(run.path), ecn: mark(run.ecn), segmentSize: run.segment, length: run.length)
        switch run.result {
        case 0:
            // Congestion control or pacing holds the rest back.
            return (transmit, false)
        case Int(LLQ_WRITE_MORE), Int(LLQ_STREAM_BLOCKED), Int(LLQ_STREAM_SHUT):
            // Where there is no run, the other way of writing finds out what that means for the stream.
            return transmit == nil ? nil : (transmit, true)
        default:
            fail(Int32(run.result))
            return (transmit, false)
        }
    }

    /// Packs datagrams and streams in turn until the packet is full or nothing is left.
    private func writePacket(into target: UnsafeMutableRawBufferPointer, shim: OpaquePointer) -> Written {
        var tryDatagrams = true
        var connectionBlocked: [EngineStream] = []
        defer {
            for stream in connectionBlocked { enqueue(stream) }
        }
        while true {
            if tryDatagrams, !datagramsToSend.isEmpty {
                if let written = writeDatagram(into: target, shim: shim, keepTrying: &tryDatagrams) { return written }
                continue
            }
            if let stream = sendQueue.popFirst() {
                stream.isQueued = false
                guard stream.hasSomethingToSend, !stream.isBlocked else { continue }
                if let written = write(stream, into: target, shim: shim, connectionBlocked: &connectionBlocked) {
                    return written
                }
                continue
            }
            return writeRest(into: target, shim: shim)
        }
    }

    /// nil: the packet has room for more.
    private func writeDatagram(
        into target: UnsafeMutableRawBufferPointer, shim: OpaquePointer, keepTrying: inout Bool
    ) -> Written? {
        guard let datagram = datagramsToSend.first else { return nil }
        guard datagram.deadline.map({ $0 > now }) ?? true else {
            expireDatagrams()
            return nil
        }
        // The path has become smaller since it was queued. ngtcp2 would write nothing, as where congestion control holds it back.
        guard handshake == nil || datagram.bytes.count <= datagramRoom(shim) ?? -1 else {
            _ = datagramsToSend.popFirst()
            countQueuedDatagrams()
            emit(.datagramLost(id: datagram.id))
            return nil
        }
        // Whether the path still takes such packets is being found out: it waits, and streams go first, in smaller packets.
        guard handshake == nil || datagram.bytes.count <= datagramRoom(shim, within: llq_conn_max_payload(shim)) ?? -1
        else {
            keepTrying = false
            return nil
        }
        var path = llq_path()
        var ecn: UInt8 = 0
        var accepted: Int32 = 0
        let packet = llq_conn_next_packet(shim)
        let result = datagram.bytes.withUnsafeBufferPointer {
            llq_conn_write_datagram(
                shim, &path, &ecn, target.baseAddress?.assumingMemoryBound(to: UInt8.self), target.count, &accepted, 1,
                datagramsInFlight.nextNumber, $0.baseAddress, $0.count, now.nanoseconds)
        }
        if accepted != 0 {
            _ = datagramsToSend.popFirst()
            countQueuedDatagrams()
            datagramsInFlight.append(id: datagram.id, packet: packet, at: now)
        }
        switch result {
        case Int(LLQ_WRITE_MORE):
            return nil
        case Int(LLQ_NOT_NOW):
            keepTrying = false
            return nil
        case 0:
            return .nothing
        case 1...:
            return written(result, path, ecn)
        default:
            return .failed(Int32(result))
        }
    }

    /// nil: the packet has room for more, or the stream can't send now.
    private func write(
        _ stream: EngineStream, into target: UnsafeMutableRawBufferPointer, shim: OpaquePointer,
        connectionBlocked: inout [EngineStream]
    ) -> Written? {
        var path = llq_path()
        var ecn: UInt8 = 0
        var accepted = -1
        let result = withUnsafeTemporaryAllocation(of: llq_vec.self, capacity: Self.maxVectors) { vectors in
            let (count, bytes) = stream.sendBuffer.unsentVectors(vectors, enough: target.count)
            let finish = stream.isFinishing && bytes == stream.sendBuffer.unsent
            let result = llq_conn_write_stream(
                shim, &path, &ecn, target.baseAddress?.assumingMemoryBound(to: UInt8.self), target.count, &accepted, 1,
                finish ? 1 : 0, Int64(stream.id.rawValue), vectors.baseAddress, count, now.nanoseconds)
            if accepted >= 0 {
                stream.sendBuffer.handOver(accepted)
                if finish, accepted == bytes {
                    stream.finWasSent = true
                    stream.finHadBytes = bytes > 0
                    if bytes == 0 { awaitLoneEnd(of: stream, true) }
                }
            }
            return result
        }
        switch result {
        case Int(LLQ_WRITE_MORE), 1...:
            enqueue(stream)
            return result > 0 ? written(result, path, ecn) : nil
        case Int(LLQ_STREAM_BLOCKED):
            if llq_conn_data_left(shim) == 0 {
                // No callback tells when the connection's window opens: it is tried again after each packet received.
                connectionBlocked.append(stream)
            } else {
                stream.isBlocked = true
            }
            return nil
        case Int(LLQ_STREAM_SHUT):
            endSending(on: stream, code: 0)
            return nil
        case 0:
            // Congestion control or pacing holds it back: it stays queued, and the next packet received or the next
            // deadline schedules the connection. Scheduling it here would make `pollTransmit` spin.
            connectionBlocked.append(stream)
            return .nothing
        default:
            return .failed(Int32(result))
        }
    }

    private func writeRest(into target: UnsafeMutableRawBufferPointer, shim: OpaquePointer) -> Written {
        var path = llq_path()
        var ecn: UInt8 = 0
        var accepted = -1
        let result = llq_conn_write_stream(
            shim, &path, &ecn, target.baseAddress?.assumingMemoryBound(to: UInt8.self), target.count, &accepted, 0, 0,
            -1, nil, 0, now.nanoseconds)
        if result > 0 { return written(result, path, ecn) }
        return result == 0 ? .nothing : .failed(Int32(result))
    }

    private func written(_ length: Int, _ path: llq_path, _ ecn: UInt8) -> Written {
        .packet(length: length, path: QUICPath(path), ecn: mark(ecn))
    }

    private func mark(_ ecn: UInt8) -> ECNCodepoint {
        settings.ecn ? ECNCodepoint(rawValue: ecn) ?? .notECT : .notECT
    }

    /// After what was buffered comes CONNECTION_CLOSE, and the connection is gone.
    private func finishClose(into buffer: UnsafeMutableRawBufferPointer) -> QUICTransmit? {
        guard pendingClose != nil, shim != nil else { return nil }
        let packet = writePendingClose()
        endpoint.retire(self, packet: packet, alreadySent: true)
        guard let packet, packet.bytes.count <= buffer.count else { return nil }
        bytesSent += UInt64(packet.bytes.count)
        packetsSent += 1
        buffer.copyBytes(from: packet.bytes)
        return QUICTransmit(
            path: packet.path, ecn: packet.ecn, segmentSize: packet.bytes.count, length: packet.bytes.count)
    }

    /// The CONNECTION_CLOSE of a close that waits, which waits no longer; nil: none does, or it can't be written.
    func writePendingClose() -> WrittenClose? {
        guard let close = pendingClose else { return nil }
        pendingClose = nil
        return Array(close.reason.utf8).withUnsafeBufferPointer {
            writeClose(
                llq_close(
                    kind: Int32(LLQ_CLOSE_APPLICATION), code: close.code, reason: $0.baseAddress,
                    reason_length: $0.count))
        }
    }
}
