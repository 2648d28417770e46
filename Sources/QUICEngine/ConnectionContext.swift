import CQUICShim

/// What ngtcp2's callbacks told, in order, to be looked at after the call into ngtcp2 has returned.
enum EngineNote {
    case handshakeCompleted
    case handshakeConfirmed
    case earlyDataRejected
    case streamOpened(Int64)
    /// The bytes lie in the notebook, in the order of these notes.
    case streamData(Int64, count: Int, finished: Bool, early: Bool)
    /// Bytes that went into the stream's buffer at once.
    case streamGrew(Int64, finished: Bool)
    case streamAcknowledged(Int64, count: UInt64)
    case streamEndAcknowledged(Int64)
    /// The end left again, with bytes before it.
    case streamEndJoined(Int64, packet: UInt64)
    case packetsAcknowledged(ClosedRange<UInt64>)
    case streamReset(Int64, code: UInt64, stillborn: Bool)
    case stopSending(Int64, code: UInt64)
    case streamClosed(Int64)
    case streamCredit(bidirectional: Bool)
    case streamWindow(Int64)
    case datagram([UInt8], early: Bool)
    case datagramAcknowledged(UInt64)
    case datagramLost(UInt64)
    case addressToken([UInt8])
    // Rare and large: indirect, so that the notes of every packet stay small.
    indirect case path(QUICPath, valid: Bool)
    indirect case localIDAdded(ConnectionID)
    indirect case localIDRemoved(ConnectionID)
    case peerResetToken([UInt8], active: Bool)
    case statelessReset
    case versionNegotiation([QUICVersion])
    case ticket
    case containedFrame
    case containedMessage
    case challenged
}

/// Notes and the stream bytes that belong to them.
final class Notebook {
    fileprivate(set) var notes: [EngineNote] = []
    /// Datagrams that were refused.
    fileprivate(set) var refusedDatagrams: UInt64 = 0
    var bytes = ByteQueue()

    /// One note for what follows on directly: most packets of a transfer carry the next bytes of one stream.
    fileprivate func add(
        _ data: UnsafeRawBufferPointer, of stream: Int64, finished: Bool, early: Bool, pool: MemoryPool
    ) {
        bytes.append(data, pool: pool)
        if case .streamData(stream, let count, false, early) = notes.last {
            notes[notes.count - 1] = .streamData(
                stream, count: count + data.count, finished: finished, early: early)
        } else {
            notes.append(.streamData(stream, count: data.count, finished: finished, early: early))
        }
    }

    fileprivate func add(acknowledged count: UInt64, of stream: Int64) {
        if case .streamAcknowledged(stream, let before) = notes.last {
            notes[notes.count - 1] = .streamAcknowledged(stream, count: before + count)
        } else {
            notes.append(.streamAcknowledged(stream, count: count))
        }
    }
}

/// What the connections of one endpoint share: where random bytes, connection IDs and their tokens come from, and notebooks
/// and memory that they use in turn, so that none keeps what it needs only while it works.
final class EngineStorage {
    let random: RandomSource
    let layout: ConnectionIDLayout
    let resetTokens: ResetTokens
    let memory = MemoryPool()
    private var notebooks: [Notebook] = []
    /// A notebook that grew beyond this in a flood is not kept.
    private static let largestKept = 4096

    init(random: RandomSource, layout: ConnectionIDLayout, resetTokens: ResetTokens) {
        self.random = random
        self.layout = layout
        self.resetTokens = resetTokens
    }

    func takeNotebook() -> Notebook { notebooks.popLast() ?? Notebook() }

    func give(_ notebook: Notebook) {
        guard notebooks.count < 2, notebook.notes.capacity <= Self.largestKept else { return }
        notebook.notes.removeAll(keepingCapacity: true)
        notebook.refusedDatagrams = 0
        if notebook.bytes.capacity > MemoryPool.pieceSize {
            notebook.bytes.removeAll(pool: memory)
        } else {
            notebook.bytes.clear()
        }
        notebooks.append(notebook)
    }
}

/// What the C side holds a pointer to while a connection lives. It only takes notes and hands out random bytes: no
/// callback reaches a connection.
final class ConnectionContext {
    // Callbacks come for every packet. None of what they touch is borrowed while one runs: a connection calls into ngtcp2
    // only when it is done with its notes.
    @exclusivity(unchecked) private var notebook: Notebook?
    /// Whether growth of the sink is noted already.
    @exclusivity(unchecked) private var hasNotedSink = false
    /// Where the notebook has the last address token: the next one takes its place.
    private var tokenNote: Int?
    /// The stream whose bytes came last and are welcome: what follows goes where it is read, without a detour.
    @exclusivity(unchecked) var sink: EngineStream?
    /// Datagrams are counted, and nothing is made of them.
    @exclusivity(unchecked) var refusesDatagrams = false
    let storage: EngineStorage
    let ticketMasters: TicketMasters?
    /// Server: of the endpoint; nil: there is no 0-RTT.
    let antiReplay: AntiReplay?
    let keyLog: ClientConfiguration.KeyLog?
    /// Server: its certificates, which the TLS session refers to.
    let certificates: CertificateTable?
    /// Takes the trace, if one is wanted.
    let qlog: QLogWriter?
    /// For tests: sees each plaintext before it is protected and may change it.
    let rewrite: ((UnsafeMutableRawBufferPointer, _ header: UnsafeRawBufferPointer) -> Void)?

    init(
        storage: EngineStorage, ticketMasters: TicketMasters?, antiReplay: AntiReplay?,
        keyLog: ClientConfiguration.KeyLog?, certificates: CertificateTable?, qlog: QLogWriter?,
        rewrite: ((UnsafeMutableRawBufferPointer, UnsafeRawBufferPointer) -> Void)?
    ) {
        self.storage = storage
        self.ticketMasters = ticketMasters
        self.antiReplay = antiReplay
        self.keyLog = keyLog
        self.certificates = certificates
        self.qlog = qlog
        self.rewrite = rewrite
    }

    /// What was noted since the last time, to be given back to the storage; nil: nothing.
    func takeNotes() -> Notebook? {
        let taken = notebook
        notebook = nil
        hasNotedSink = false
        tokenNote = nil
        return taken
    }

    /// The callbacks, with this object as their context; it must outlive the C connection.
    var owner: llq_owner {
        var owner = llq_owner()
        owner.context = Unmanaged.passUnretained(self).toOpaque()
        owner.event = { context, event in
            guard let context, let event else { return }
            ConnectionContext.from(context).note(event.pointee)
        }
        owner.random = { context, target, length in
            guard let context else { return }
            let bytes = UnsafeMutableRawBufferPointer(start: target, count: length)
            ConnectionContext.from(context).storage.random.fill(bytes)
        }
        owner.new_cid = { context, target, length, token in
            guard let context, let token else { return }
            let target = UnsafeMutableRawBufferPointer(start: target, count: length)
            ConnectionContext.from(context).fillConnectionID(target, token: token)
        }
        owner.ticket_master = { context, offer, version, master in
            guard let context, let offer, let version, let master else { return -1 }
            guard let chosen = ConnectionContext.from(context).chooseMaster(for: offer.pointee) else { return -1 }
            version.pointee = chosen.version
            UnsafeMutableRawBufferPointer(start: master, count: chosen.master.count).copyBytes(from: chosen.master)
            return 0
        }
        owner.ticket_sealed = { context, ticket, length in
            guard let context else { return }
            ConnectionContext.from(context).antiReplay?.noteSealed(UnsafeRawBufferPointer(start: ticket, count: length))
        }
        owner.key_log = { context, line in
            guard let context, let line else { return }
            ConnectionContext.from(context).keyLog?(String(cString: line))
        }
        if certificates?.hasNames ?? false {
            owner.credentials = { context, name, length in
                guard let context, let name else { return nil }
                let text = UnsafeRawBufferPointer(start: name, count: length)
                let chosen = ConnectionContext.from(context).certificates?
                    .credentials(for: String(decoding: text, as: UTF8.self))
                return chosen.map { UnsafeMutableRawPointer($0.pointer) }
            }
        }
        if qlog != nil {
            owner.qlog = { context, data, length, last in
                guard let context else { return }
                ConnectionContext.from(context).qlog?(UnsafeRawBufferPointer(start: data, count: length), last != 0)
            }
        }
        if rewrite != nil {
            owner.rewrite = { context, plaintext, length, header, headerLength in
                guard let context else { return }
                ConnectionContext.from(context).rewrite?(
                    UnsafeMutableRawBufferPointer(start: plaintext, count: length),
                    UnsafeRawBufferPointer(start: header, count: headerLength))
            }
        }
        return owner
    }

    private static func from(_ context: UnsafeMutableRawPointer) -> ConnectionContext {
        Unmanaged<ConnectionContext>.fromOpaque(context).takeUnretainedValue()
    }

    private func fillConnectionID(_ target: UnsafeMutableRawBufferPointer, token: UnsafeMutablePointer<UInt8>) {
        storage.layout.fill(target, random: storage.random)
        storage.resetTokens.fill(token, for: ConnectionID(UnsafeRawBufferPointer(target)))
    }

    private func chooseMaster(for offer: llq_ticket_offer) -> (version: UInt32, master: [UInt8])? {
        guard let ticketMasters else { return nil }
        antiReplay?.noteOffered(offer.ticket.map { UnsafeRawBufferPointer(start: $0, count: offer.ticket_length) })
        let name = offer.ticket.map { Array(UnsafeBufferPointer(start: $0, count: TicketMasters.nameLength)) }
        let offered = Array(UnsafeBufferPointer(start: offer.protocols, count: offer.protocols_length))
        return ticketMasters.choose(
            sealedUnder: name, for: ticketMasters.selected(from: offered), first: offer.first,
            expected: offer.expected)
    }

    private func openNotebook() -> Notebook {
        if let notebook { return notebook }
        let opened = storage.takeNotebook()
        notebook = opened
        return opened
    }

    private func note(token: [UInt8], in book: Notebook) {
        if let tokenNote {
            book.notes[tokenNote] = .addressToken(token)
        } else {
            tokenNote = book.notes.count
            book.notes.append(.addressToken(token))
        }
    }

    private func note(_ event: llq_event) {
        // Not past bytes that wait in the notebook, perhaps of the same stream.
        if event.kind == Int32(LLQ_EVENT_STREAM_DATA.rawValue), let sink,
            sink.id.rawValue == UInt64(event.stream_id), event.flags & UInt32(LLQ_FLAG_EARLY) == 0,
            notebook.map({ $0.bytes.isEmpty }) ?? true
        {
            sink.receiveBuffer.append(
                UnsafeRawBufferPointer(start: event.data, count: event.length), early: false, pool: storage.memory)
            let finished = event.flags & UInt32(LLQ_FLAG_FIN) != 0
            if hasNotedSink, !finished { return }
            hasNotedSink = !finished
            openNotebook().notes.append(.streamGrew(event.stream_id, finished: finished))
            return
        }
        let book = openNotebook()
        let bytes = UnsafeRawBufferPointer(start: event.data, count: event.length)
        switch llq_event_kind(UInt32(event.kind)) {
        case LLQ_EVENT_HANDSHAKE_COMPLETED: book.notes.append(.handshakeCompleted)
        case LLQ_EVENT_HANDSHAKE_CONFIRMED: book.notes.append(.handshakeConfirmed)
        case LLQ_EVENT_EARLY_DATA_REJECTED: book.notes.append(.earlyDataRejected)
        case LLQ_EVENT_STREAM_OPENED: book.notes.append(.streamOpened(event.stream_id))
        case LLQ_EVENT_STREAM_DATA:
            let finished = event.flags & UInt32(LLQ_FLAG_FIN) != 0
            let early = event.flags & UInt32(LLQ_FLAG_EARLY) != 0
            book.add(bytes, of: event.stream_id, finished: finished, early: early, pool: storage.memory)
        case LLQ_EVENT_END_ACKED: book.notes.append(.streamEndAcknowledged(event.stream_id))
        case LLQ_EVENT_END_JOINED: book.notes.append(.streamEndJoined(event.stream_id, packet: event.value))
        case LLQ_EVENT_PACKETS_ACKED: book.notes.append(.packetsAcknowledged(event.value...event.last))
        case LLQ_EVENT_STREAM_ACKED: book.add(acknowledged: event.value, of: event.stream_id)
        case LLQ_EVENT_STREAM_RESET:
            book.notes.append(
                .streamReset(
                    event.stream_id, code: event.value, stillborn: event.flags & UInt32(LLQ_FLAG_STILLBORN) != 0))
        case LLQ_EVENT_STOP_SENDING: book.notes.append(.stopSending(event.stream_id, code: event.value))
        case LLQ_EVENT_STREAM_CLOSED: book.notes.append(.streamClosed(event.stream_id))
        case LLQ_EVENT_MAX_STREAMS_BIDI: book.notes.append(.streamCredit(bidirectional: true))
        case LLQ_EVENT_MAX_STREAMS_UNI: book.notes.append(.streamCredit(bidirectional: false))
        case LLQ_EVENT_MAX_STREAM_DATA: book.notes.append(.streamWindow(event.stream_id))
        case LLQ_EVENT_DATAGRAM where refusesDatagrams: book.refusedDatagrams += 1
        case LLQ_EVENT_DATAGRAM:
            book.notes.append(.datagram(Array(bytes), early: event.flags & UInt32(LLQ_FLAG_EARLY) != 0))
        case LLQ_EVENT_DATAGRAM_ACKED: book.notes.append(.datagramAcknowledged(event.value))
        case LLQ_EVENT_DATAGRAM_LOST: book.notes.append(.datagramLost(event.value))
        case LLQ_EVENT_NEW_TOKEN: note(token: Array(bytes), in: book)
        case LLQ_EVENT_PATH_VALIDATED: book.notes.append(.path(QUICPath(event.path), valid: true))
        case LLQ_EVENT_PATH_FAILED: book.notes.append(.path(QUICPath(event.path), valid: false))
        case LLQ_EVENT_CID_ADDED: book.notes.append(.localIDAdded(ConnectionID(bytes)))
        case LLQ_EVENT_CID_REMOVED: book.notes.append(.localIDRemoved(ConnectionID(bytes)))
        case LLQ_EVENT_PEER_CID_ACTIVE: book.notes.append(.peerResetToken(Array(bytes), active: true))
        case LLQ_EVENT_PEER_CID_INACTIVE: book.notes.append(.peerResetToken(Array(bytes), active: false))
        case LLQ_EVENT_STATELESS_RESET: book.notes.append(.statelessReset)
        case LLQ_EVENT_VERSION_NEGOTIATION:
            // A datagram holds a few hundred; more than anyone speaks is of no use.
            let versions = (0..<min(bytes.count / 4, 64)).map {
                QUICVersion(rawValue: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))
            }
            book.notes.append(.versionNegotiation(versions))
        case LLQ_EVENT_TICKET: book.notes.append(.ticket)
        case LLQ_EVENT_CONTAINED_FRAME: book.notes.append(.containedFrame)
        case LLQ_EVENT_CONTAINED_MESSAGE: book.notes.append(.containedMessage)
        case LLQ_EVENT_CHALLENGED: book.notes.append(.challenged)
        default: assertionFailure("unknown event \(event.kind)")
        }
    }
}
