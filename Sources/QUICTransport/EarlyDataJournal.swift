internal import NIOCore
internal import QUICEngine

/// What an application did on a connection before its handshake completed, so that the attempt can start again on
/// another path and carry the same 0-RTT data. Bounded by what the engine took: the peer's remembered limits and the
/// send buffers. It holds references to the written buffers, not copies.
struct EarlyDataJournal {
    private enum Entry {
        case opened(QUICStreamID)
        case wrote(ByteBuffer, QUICStreamID, finish: Bool)
        case reset(QUICStreamID, code: UInt64)
        case stopped(QUICStreamID, code: UInt64)
        case prioritized(QUICStreamID, StreamPriority)
        case awaitsDelivery(QUICStreamID)
        case datagram(ByteBuffer, id: UInt64, deadline: QUICInstant?)
    }

    private var entries: [Entry] = []
    /// Streams whose last write was not taken whole: the application waits to be told that they are writable.
    private var waitingStreams: [QUICStreamID] = []
    /// Kinds of streams that could not be opened.
    private var waitingOpeners: Set<Bool> = []

    var isEmpty: Bool { entries.isEmpty && waitingOpeners.isEmpty }

    mutating func opened(_ stream: QUICStreamID) { entries.append(.opened(stream)) }

    /// No stream was to be had.
    mutating func notOpened(bidirectional: Bool) { waitingOpeners.insert(bidirectional) }

    /// - Parameter isWhole: whether all that was offered was taken.
    mutating func wrote(_ bytes: ByteBuffer, to stream: QUICStreamID, finish: Bool, isWhole: Bool) {
        waitingStreams.removeAll { $0 == stream }
        if !isWhole { waitingStreams.append(stream) }
        guard bytes.readableBytes > 0 || finish else { return }
        entries.append(.wrote(bytes, stream, finish: finish))
    }

    mutating func reset(_ stream: QUICStreamID, code: UInt64) { entries.append(.reset(stream, code: code)) }

    mutating func stopped(_ stream: QUICStreamID, code: UInt64) { entries.append(.stopped(stream, code: code)) }

    mutating func prioritized(_ stream: QUICStreamID, _ priority: StreamPriority) {
        // One for each stream since the last write, so that an application that keeps changing its mind doesn't fill the journal. Those
        // before it stay: how much room a write found went by them.
        let lastWrite = entries.lastIndex { if case .wrote = $0 { true } else { false } } ?? entries.startIndex
        let known = entries[lastWrite...].firstIndex {
            if case .prioritized(stream, _) = $0 { true } else { false }
        }
        if let known { entries.remove(at: known) }
        entries.append(.prioritized(stream, priority))
    }

    mutating func awaitsDelivery(of stream: QUICStreamID) {
        let isKnown = entries.contains { if case .awaitsDelivery(stream) = $0 { true } else { false } }
        if !isKnown { entries.append(.awaitsDelivery(stream)) }
    }

    mutating func sent(datagram: ByteBuffer, id: UInt64, deadline: QUICInstant?) {
        entries.append(.datagram(datagram, id: id, deadline: deadline))
    }

    /// The application knows what became of a datagram: it is not sent again.
    mutating func datagramEnded(_ id: UInt64) {
        entries.removeAll {
            if case .datagram(_, id, _) = $0 { true } else { false }
        }
    }

    /// Does the same again on a new attempt. The same ticket brings the same limits, so everything is taken as before.
    /// - Returns: what the application is to be told, because the new attempt doesn't know that it waits for it; nil if
    ///   something was not taken: streams would differ from what the application knows.
    func replay(on connection: QUICEngineConnection) -> [QUICConnectionEvent]? {
        var events: [QUICConnectionEvent] = []
        do throws(QUICError) {
            for entry in entries {
                switch entry {
                case .opened(let stream):
                    guard try connection.openStream(bidirectional: stream.isBidirectional) == stream else {
                        return nil
                    }
                case .wrote(let bytes, let stream, let finish):
                    let taken = bytes.withUnsafeReadableBytes { memory in
                        try? connection.write(memory, to: stream, finish: finish)
                    }
                    guard taken == bytes.readableBytes else { return nil }
                case .reset(let stream, let code): connection.reset(stream, code: code)
                case .stopped(let stream, let code): connection.stopSending(stream, code: code)
                case .prioritized(let stream, let priority): connection.setPriority(priority, of: stream)
                case .awaitsDelivery(let stream):
                    if try connection.notifyDelivery(of: stream) { events.append(.streamDelivered(stream)) }
                case .datagram(let bytes, let id, let deadline):
                    // Unreliable by nature: what isn't taken is lost.
                    let isTaken = bytes.withUnsafeReadableBytes {
                        try? connection.sendDatagram($0, id: id, deadline: deadline)
                    }
                    if isTaken != true { events.append(.datagramLost(id: id)) }
                }
            }
        } catch {
            return nil
        }
        // They try again. What isn't taken then is owed by the new attempt.
        events += waitingStreams.map { .streamWritable($0) }
        events += waitingOpeners.map { .streamsAvailable(bidirectional: $0) }
        return events
    }
}
