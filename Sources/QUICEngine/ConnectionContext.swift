import CQUICShim

/// What ngtcp2's callbacks told, in order, to be looked at after the call into ngtcp2 has returned.
enum EngineNote {
    case handshakeCompleted
    case handshakeConfirmed
    case earlyDataRejected
    case streamOpened(Int64)
    case streamData(Int64, bytes: [UInt8], finished: Bool, early: Bool)
    case streamAcknowledged(Int64, count: UInt64)
    case streamReset(Int64, code: UInt64, stillborn: Bool)
    case stopSending(Int64, code: UInt64)
    case streamClosed(Int64)
    case streamCredit(bidirectional: Bool)
    case streamWindow(Int64)
    case datagram([UInt8])
    case datagramAcknowledged(UInt64)
    case datagramLost(UInt64)
    case addressToken([UInt8])
    case path(QUICPath, valid: Bool)
    case localIDAdded(ConnectionID)
    case localIDRemoved(ConnectionID)
    case peerResetToken([UInt8], active: Bool)
    case statelessReset
    case versionNegotiation
    case ticket
    case containedFrame
    case containedMessage
}

/// What the C side holds a pointer to while a connection lives. It only takes notes and hands out random bytes: no
/// callback reaches a connection.
final class ConnectionContext {
    private(set) var notes: [EngineNote] = []
    let random: RandomSource
    let layout: ConnectionIDLayout
    let staticKey: [UInt8]
    let ticketMasters: TicketMasters?
    let keyLog: ClientConfiguration.KeyLog?
    /// For tests: sees each plaintext before it is protected and may change it.
    let rewrite: ((UnsafeMutableRawBufferPointer, _ header: UnsafeRawBufferPointer) -> Void)?

    init(
        random: RandomSource, layout: ConnectionIDLayout, staticKey: [UInt8], ticketMasters: TicketMasters?,
        keyLog: ClientConfiguration.KeyLog?,
        rewrite: ((UnsafeMutableRawBufferPointer, UnsafeRawBufferPointer) -> Void)?
    ) {
        self.random = random
        self.layout = layout
        self.staticKey = staticKey
        self.ticketMasters = ticketMasters
        self.keyLog = keyLog
        self.rewrite = rewrite
    }

    func takeNotes() -> [EngineNote] {
        guard !notes.isEmpty else { return [] }
        let taken = notes
        notes = []
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
            ConnectionContext.from(context).random.fill(UnsafeMutableRawBufferPointer(start: target, count: length))
        }
        owner.new_cid = { context, target, length, token in
            guard let context, let token else { return }
            let target = UnsafeMutableRawBufferPointer(start: target, count: length)
            ConnectionContext.from(context).fillConnectionID(target, token: token)
        }
        owner.ticket_master = { context, name, master in
            guard let context, let master else { return -1 }
            return ConnectionContext.from(context).chooseTicketMaster(name: name, master: master) ? 0 : -1
        }
        owner.key_log = { context, line in
            guard let context, let line else { return }
            ConnectionContext.from(context).keyLog?(String(cString: line))
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
        layout.fill(target, random: random)
        var cid = ConnectionID(UnsafeRawBufferPointer(target)).shim
        let result = llq_stateless_reset_token(token, staticKey, staticKey.count, &cid)
        assert(result == 0)
    }

    private func chooseTicketMaster(name: UnsafePointer<UInt8>?, master: UnsafeMutablePointer<UInt8>) -> Bool {
        let name = name.map { Array(UnsafeBufferPointer(start: $0, count: TicketMasters.nameLength)) }
        guard let chosen = ticketMasters?.master(sealedUnder: name) else { return false }
        UnsafeMutableRawBufferPointer(start: master, count: chosen.count).copyBytes(from: chosen)
        return true
    }

    private func note(_ event: llq_event) {
        let bytes = UnsafeRawBufferPointer(start: event.data, count: event.length)
        switch llq_event_kind(UInt32(event.kind)) {
        case LLQ_EVENT_HANDSHAKE_COMPLETED: notes.append(.handshakeCompleted)
        case LLQ_EVENT_HANDSHAKE_CONFIRMED: notes.append(.handshakeConfirmed)
        case LLQ_EVENT_EARLY_DATA_REJECTED: notes.append(.earlyDataRejected)
        case LLQ_EVENT_STREAM_OPENED: notes.append(.streamOpened(event.stream_id))
        case LLQ_EVENT_STREAM_DATA:
            notes.append(
                .streamData(
                    event.stream_id, bytes: Array(bytes), finished: event.flags & UInt32(LLQ_FLAG_FIN) != 0,
                    early: event.flags & UInt32(LLQ_FLAG_EARLY) != 0))
        case LLQ_EVENT_STREAM_ACKED: notes.append(.streamAcknowledged(event.stream_id, count: event.value))
        case LLQ_EVENT_STREAM_RESET:
            notes.append(
                .streamReset(
                    event.stream_id, code: event.value, stillborn: event.flags & UInt32(LLQ_FLAG_STILLBORN) != 0))
        case LLQ_EVENT_STOP_SENDING: notes.append(.stopSending(event.stream_id, code: event.value))
        case LLQ_EVENT_STREAM_CLOSED: notes.append(.streamClosed(event.stream_id))
        case LLQ_EVENT_MAX_STREAMS_BIDI: notes.append(.streamCredit(bidirectional: true))
        case LLQ_EVENT_MAX_STREAMS_UNI: notes.append(.streamCredit(bidirectional: false))
        case LLQ_EVENT_MAX_STREAM_DATA: notes.append(.streamWindow(event.stream_id))
        case LLQ_EVENT_DATAGRAM: notes.append(.datagram(Array(bytes)))
        case LLQ_EVENT_DATAGRAM_ACKED: notes.append(.datagramAcknowledged(event.value))
        case LLQ_EVENT_DATAGRAM_LOST: notes.append(.datagramLost(event.value))
        case LLQ_EVENT_NEW_TOKEN: notes.append(.addressToken(Array(bytes)))
        case LLQ_EVENT_PATH_VALIDATED: notes.append(.path(QUICPath(event.path), valid: true))
        case LLQ_EVENT_PATH_FAILED: notes.append(.path(QUICPath(event.path), valid: false))
        case LLQ_EVENT_CID_ADDED: notes.append(.localIDAdded(ConnectionID(bytes)))
        case LLQ_EVENT_CID_REMOVED: notes.append(.localIDRemoved(ConnectionID(bytes)))
        case LLQ_EVENT_PEER_CID_ACTIVE: notes.append(.peerResetToken(Array(bytes), active: true))
        case LLQ_EVENT_PEER_CID_INACTIVE: notes.append(.peerResetToken(Array(bytes), active: false))
        case LLQ_EVENT_STATELESS_RESET: notes.append(.statelessReset)
        case LLQ_EVENT_VERSION_NEGOTIATION: notes.append(.versionNegotiation)
        case LLQ_EVENT_TICKET: notes.append(.ticket)
        case LLQ_EVENT_CONTAINED_FRAME: notes.append(.containedFrame)
        case LLQ_EVENT_CONTAINED_MESSAGE: notes.append(.containedMessage)
        default: assertionFailure("unknown event \(event.kind)")
        }
    }
}
