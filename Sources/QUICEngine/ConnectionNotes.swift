import CQUICShim

/// What ngtcp2's callbacks told becomes state and events.
extension QUICEngineConnection {
    private static let maxTickets = 16
    private static let maxTokens = 16

    func processNotes() {
        while let book = context.takeNotes() {
            // The peer's STOP_SENDING is noted before ngtcp2 has seen its packet, which may open the stream first.
            var stops: [EngineNote] = []
            var offset = 0
            for note in book.notes {
                switch note {
                case .stopSending: stops.append(note)
                case .streamData(let id, let count, let finished, let early):
                    received(book, offset..<offset + count, finished: finished, early: early, on: id)
                    offset += count
                default: process(note)
                }
            }
            for stop in stops { process(stop) }
            endpoint.counters.datagramFramesDropped += book.refusedDatagrams
            context.storage.give(book)
        }
        offerAddressRoom()
    }

    private func process(_ note: EngineNote) {
        switch note {
        case .handshakeCompleted: handshakeCompleted()
        case .handshakeConfirmed: emit(.handshakeConfirmed)
        case .earlyDataRejected: earlyDataRejected()
        case .ticket: reportTicket()
        case .streamData: break
        case .streamOpened, .streamGrew, .streamAcknowledged, .streamEndAcknowledged, .streamEndJoined, .streamReset,
            .stopSending, .streamClosed, .streamWindow:
            processStream(note)
        case .packetsAcknowledged(let packets):
            for stream in joinedEnds.streams(in: packets) { endAcknowledged(stream) }
        case .streamCredit(let bidirectional): streamCredit(bidirectional: bidirectional)
        case .datagram(let bytes, let early): received(datagram: bytes, early: early)
        case .datagramAcknowledged(let number): datagramEnded(number, acknowledged: true)
        case .datagramLost(let number): datagramEnded(number, acknowledged: false)
        case .addressToken(let token):
            // A server that floods us with them has told us enough.
            guard tokensReported < Self.maxTokens else { return }
            tokensReported += 1
            let version = shim.map { QUICVersion(rawValue: llq_conn_version($0)) } ?? .v1
            emit(.addressToken(AddressToken.keep(token, version: version)))
        case .path(let path, let valid): pathAnswered(path, valid: valid)
        case .localIDAdded(let id):
            givenIDs += 1
            endpoint.addRoute(id, to: self)
        case .localIDRemoved(let id): endpoint.removeRoute(id, of: self)
        case .peerResetToken(let token, let active):
            if active { learn(resetToken: token) } else { forget(resetToken: token) }
        case .statelessReset: gotStatelessReset = true
        case .versionNegotiation(let versions): offeredVersions = versions
        case .containedFrame: endpoint.counters.containedFrames += 1
        case .containedMessage: endpoint.counters.containedHandshakeMessages += 1
        case .challenged: wasChallenged()
        }
    }

    private func processStream(_ note: EngineNote) {
        switch note {
        case .streamOpened(let id):
            _ = remoteStream(id)
        case .streamGrew(let id, let finished):
            if let stream = streams[id] { grew(stream, finished: finished) }
        case .streamAcknowledged(let id, let count):
            guard let stream = streams[id] else { return }
            stream.sendBuffer.acknowledge(count)
            countSendBuffer(of: stream, changedBy: -Int(count))
            reportWritable(stream)
            reportDelivered(stream)
        case .streamEndAcknowledged(let id):
            endAcknowledged(QUICStreamID(rawValue: UInt64(id)))
        case .streamEndJoined(let id, let packet):
            guard let stream = streams[id], stream.awaitsLoneEnd else { return }
            joinedEnds.append(stream.id, in: packet)
            if let shim { llq_conn_tell_acknowledged(shim, 1) }
        case .streamReset(let id, let code, let stillborn):
            // Stillborn: ngtcp2 has no record of it, as it was reset before anything else of it came in. ngtcp2 reports one behind the end
            // of a stream, too, which may be done and forgotten by now. What has come whole stays (RFC 9000 section 3.2): its end was
            // told already, and would read as the end of less.
            guard let stream = streams[id] ?? (stillborn ? remoteStream(id) : nil), !stream.peerReset,
                !stream.receiveBuffer.hasEnd
            else { return }
            stream.peerReset = true
            dropUnread(stream)
            emit(.streamReset(stream.id, code: code))
            if stream.sends, !stillborn { forgetIfDone(stream) } else { close(stream) }
        case .stopSending(let id, let code):
            guard let stream = streams[id], stream.sends, !stream.isClosed, !stream.wasStopped else { return }
            stream.wasStopped = true
            stream.owesWritable = false
            endSending(on: stream, code: code)
            emit(.stopSending(stream.id, code: code))
        case .streamClosed(let id):
            if let stream = streams[id] { close(stream) }
        case .streamWindow(let id):
            guard let stream = streams[id] else { return }
            stream.isBlocked = false
            queueForSending(stream)
        default:
            assertionFailure("not a stream's note")
        }
    }

    /// The stream, made and announced if the peer has just opened it; nil for one of ours.
    private func remoteStream(_ id: Int64) -> EngineStream? {
        let id = QUICStreamID(rawValue: UInt64(id))
        guard id.isClientInitiated == isServer else { return nil }
        if let stream = streams[id] { return stream }
        let stream = EngineStream(id: id, isLocal: false)
        streams.insert(stream)
        emit(.streamOpened(id))
        return stream
    }

    private func received(_ book: Notebook, _ range: Range<Int>, finished: Bool, early: Bool, on id: Int64) {
        guard let stream = streams[id], stream.stopCode == nil, !stream.peerReset else {
            // Nobody reads it.
            if let shim, !range.isEmpty { llq_conn_extend_connection(shim, UInt64(range.count)) }
            return
        }
        let isEarly = early && handshake == nil
        stream.receiveBuffer.append(
            UnsafeRawBufferPointer(rebasing: book.bytes.bytes[range]), early: isEarly, pool: context.storage.memory)
        context.sink = stream
        if !range.isEmpty || finished { grew(stream, finished: finished) }
    }

    private func grew(_ stream: EngineStream, finished: Bool) {
        if finished {
            stream.receiveBuffer.hasEnd = true
            context.sink = nil
        }
        if !stream.readableReported {
            stream.readableReported = true
            emit(.streamReadable(stream.id))
        }
        // ngtcp2 0.12 waits for an acknowledgement of a FIN that we never send, and doesn't report this one closed.
        if finished, !stream.sends { close(stream) }
    }

    /// Nothing more comes or goes; what was received can still be read.
    func close(_ stream: EngineStream) {
        guard !stream.isClosed else { return forgetIfDone(stream) }
        reportDelivered(stream)
        awaitLoneEnd(of: stream, false)
        stream.isClosed = true
        let held = stream.sendBuffer.count
        stream.sendBuffer = SendBuffer()
        countSendBuffer(of: stream, changedBy: -held)
        reportWritableToOthers()
        emit(.streamClosed(stream.id))
        forgetIfDone(stream)
    }

    private func endAcknowledged(_ id: QUICStreamID) {
        guard let stream = streams[id] else { return }
        stream.endWasAcknowledged = true
        awaitLoneEnd(of: stream, false)
        reportDelivered(stream)
    }

    /// The end of a stream left without bytes, or is awaited no more: by then the peer has it, or it doesn't matter.
    func awaitLoneEnd(of stream: EngineStream, _ awaits: Bool) {
        guard stream.awaitsLoneEnd != awaits else { return }
        stream.awaitsLoneEnd = awaits
        loneEnds += awaits ? 1 : -1
        guard let shim else { return }
        llq_conn_search_ends(shim, loneEnds > 0 ? 1 : 0)
        guard !awaits, !joinedEnds.isEmpty else { return }
        joinedEnds.remove(stream.id)
        llq_conn_tell_acknowledged(shim, joinedEnds.isEmpty ? 0 : 1)
    }

    private func reportDelivered(_ stream: EngineStream) {
        guard stream.owesDelivered, stream.isDelivered else { return }
        stream.owesDelivered = false
        emit(.streamDelivered(stream.id))
    }

    /// Hysteresis: a writer that was stopped is woken when half of the buffer is free.
    func reportWritable(_ stream: EngineStream) {
        reportWritableToUrgent()
        reportWritableToAll()
        if stream.isBackground { reportWritableToBackground() }
        guard stream.owesWritable, stream.resetCode == nil, !waitsForOthers(stream),
            stream.sendBuffer.count <= settings.streamSendBuffer / 2
        else { return }
        guard hasAddressRoom(for: stream) else { return waitForAddressRoom(stream) }
        stream.owesWritable = false
        emit(.streamWritable(stream.id))
    }

    /// A stream left room to others.
    func reportWritableToOthers() {
        reportWritableToUrgent()
        reportWritableToAll()
        reportWritableToBackground()
    }

    /// Whether the buffer that it shares with others is too full still.
    private func waitsForOthers(_ stream: EngineStream) -> Bool {
        if stream.isUrgent { return owesWritableToUrgent }
        return owesWritableToAll || (owesWritableToBackground && stream.isBackground)
    }

    /// The same where the more urgent streams filled what only they have: all of that is free again.
    private func reportWritableToUrgent() {
        guard owesWritableToUrgent, sendBufferBytes <= settings.sendBufferOfAll else { return }
        owesWritableToUrgent = false
        reportWritable(where: \.isUrgent)
    }

    /// The same where it was all streams together that filled the buffer.
    private func reportWritableToAll() {
        guard owesWritableToAll, sendBufferBytes <= settings.sendBufferOfAll / 2 else { return }
        owesWritableToAll = false
        reportWritable { _ in true }
    }

    /// There is room again of what the connections of an address may have together.
    func reportWritableForAddress() { forEachWaiting { reportWritable($0) } }

    /// Visits the streams whose writers wait. Who is first takes most of the room: that goes round.
    func forEachWaiting(_ tell: (EngineStream) -> Void) {
        let last = firstWoken
        let waiting = streams.all.filter(\.owesWritable)
            .sorted { $0.id.rawValue &- last &- 1 < $1.id.rawValue &- last &- 1 }
        var isFirst = true
        for stream in waiting {
            tell(stream)
            // One that waits for something else, too, has had no turn, and leaves the next one's where it is.
            guard isFirst, !stream.owesWritable else { continue }
            firstWoken = stream.id.rawValue
            isFirst = false
        }
    }

    /// The same where it was the less urgent streams together.
    func reportWritableToBackground() {
        guard owesWritableToBackground, backgroundBytes <= settings.backgroundSendBuffer / 2 else { return }
        owesWritableToBackground = false
        reportWritable(where: \.isBackground)
    }

    private func reportWritable(where isMeant: (EngineStream) -> Bool) {
        for stream in streams.all.filter({ $0.owesWritable && isMeant($0) })
            .sorted(by: { $0.id.rawValue < $1.id.rawValue })
        {
            reportWritable(stream)
        }
    }

    func streamCredit(bidirectional: Bool) {
        reopenStreams()
        guard let shim, streamsToReopen.isEmpty, llq_conn_streams_left(shim, bidirectional ? 1 : 0) > 0 else { return }
        if bidirectional {
            guard owesStreamCredit.bidirectional else { return }
            owesStreamCredit.bidirectional = false
        } else {
            guard owesStreamCredit.unidirectional else { return }
            owesStreamCredit.unidirectional = false
        }
        emit(.streamsAvailable(bidirectional: bidirectional))
    }

    private func received(datagram: [UInt8], early: Bool) {
        guard hasRoom(forReceivedDatagramOf: datagram.count) else {
            endpoint.counters.datagramFramesDropped += 1
            return
        }
        receivedDatagrams.append((datagram, early && handshake == nil))
        context.storage.memory.held += datagram.count
        if receivedDatagrams.count > settings.receivedDatagramLimit {
            // The oldest is worth the least. Its event finds the next one in its place.
            _ = takeReceivedDatagram()
            endpoint.counters.datagramFramesDropped += 1
        } else {
            endpoint.emitDatagram(from: self)
        }
    }

    func takeReceivedDatagram() -> (bytes: [UInt8], isEarly: Bool)? {
        guard let first = receivedDatagrams.popFirst() else { return nil }
        context.storage.memory.held -= first.bytes.count
        return first
    }

    func learn(resetToken token: [UInt8]) {
        // What was noted behind its end must not keep it.
        guard shim != nil else { return }
        resetTokens.insert(token)
        endpoint.addResetToken(token, for: self)
    }

    private func forget(resetToken token: [UInt8]) {
        resetTokens.remove(token)
        endpoint.removeResetToken(token, of: self)
    }

    private func reportTicket() {
        guard let shim, let handshake, ticketsReported < Self.maxTickets else { return }
        var length = 0
        guard let data = llq_tls_session(shim, &length) else { return }
        defer { llq_free(data) }
        var parameters = [UInt8](repeating: 0, count: 512)
        let used = llq_conn_encode_early_parameters(shim, &parameters, parameters.count)
        ticketsReported += 1
        let ticket = SessionTicket(
            session: Array(UnsafeBufferPointer(start: data, count: length)),
            transportParameters: Array(parameters.prefix(used)),
            serverName: client?.serverName ?? "", applicationProtocol: handshake.applicationProtocol ?? "",
            // A server may say more than it may (RFC 8446 section 4.6.1).
            expiresAt: llq_wall_clock() + min(UInt64(llq_tls_ticket_lifetime(shim)), TicketKeyRing.ticketLifetime),
            holder: client?.ticketHolder ?? [],
            version: QUICVersion(rawValue: llq_conn_version(shim)))
        emit(.sessionTicket(ticket))
    }
}
