import HTTPTypes
import QUICEngine
import QUICTransport

/// The streams of a connection that has neither packets nor a network: what a session does on them, and what its peer does.
/// Events are as the engine tells them.
final class StreamsInMemory: EngineStandIn {
    final class Stream {
        let id: QUICStreamID
        let sends: Bool
        let receives: Bool
        /// All that the peer has sent, whether it was taken or not.
        var arrived: [UInt8] = []
        var taken = 0
        var earlyEnd = 0
        var hasEnd = false
        var endWasRead = false
        var peerReset = false
        var stopCode: UInt64?
        var readableReported = false
        /// All that the session has written.
        var sent: [UInt8] = []
        var acknowledged = 0
        var isFinishing = false
        var resetCode: UInt64?
        var wasStopped = false
        var owesWritable = false
        var isClosed = false
        var isForgotten = false

        init(_ id: QUICStreamID, isLocal: Bool) {
            self.id = id
            sends = id.isBidirectional || isLocal
            receives = id.isBidirectional || !isLocal
        }

        var unread: Int { peerReset || stopCode != nil ? 0 : arrived.count - taken }
        var isReadOut: Bool { !receives || peerReset || stopCode != nil || endWasRead }
        var isSent: Bool { !sends || resetCode != nil || (isFinishing && acknowledged == sent.count) }
    }

    /// Bytes that may be unread on a stream.
    static let window = 64 << 10

    let isServer: Bool
    /// Bytes of each stream that the peer may not have acknowledged.
    let sendBuffer: Int
    private(set) var streams: [QUICStreamID: Stream] = [:]
    /// In the order in which they were opened.
    private(set) var all: [Stream] = []
    private(set) var events: [QUICConnectionEvent] = []
    private(set) var ownClose: UInt64?
    private(set) var finding: FuzzFinding?
    var isHandshakeComplete = false
    /// Streams that the session may open yet.
    private var credit: (bidirectional: Int, unidirectional: Int)
    private var owesCredit = (bidirectional: false, unidirectional: false)
    private var opened = (bidirectional: UInt64(0), unidirectional: UInt64(0))

    init(isServer: Bool, sendBuffer: Int, bidirectional: Int, unidirectional: Int) {
        self.isServer = isServer
        self.sendBuffer = sendBuffer
        credit = (bidirectional, unidirectional)
    }

    func takeEvents() -> [QUICConnectionEvent] {
        defer { events = [] }
        return events
    }

    // MARK: The session

    func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? {
        try checkOpen()
        guard bidirectional ? credit.bidirectional > 0 : credit.unidirectional > 0 else {
            if bidirectional { owesCredit.bidirectional = true } else { owesCredit.unidirectional = true }
            return nil
        }
        let number: UInt64
        if bidirectional {
            credit.bidirectional -= 1
            number = opened.bidirectional << 2
            opened.bidirectional += 1
        } else {
            credit.unidirectional -= 1
            number = opened.unidirectional << 2 | 2
            opened.unidirectional += 1
        }
        return insert(QUICStreamID(rawValue: number | (isServer ? 1 : 0)), isLocal: true).id
    }

    func write(_ bytes: UnsafeRawBufferPointer, to id: QUICStreamID, finish: Bool) throws(QUICError) -> Int {
        try checkOpen()
        let stream = try known(id)
        guard stream.sends, !stream.isFinishing, stream.resetCode == nil, !stream.isClosed else {
            throw QUICError(.streamState, "\(id) can't be written", advice: "")
        }
        let accepted = min(bytes.count, max(0, sendBuffer - (stream.sent.count - stream.acknowledged)))
        stream.sent.append(contentsOf: bytes.prefix(accepted))
        if accepted < bytes.count { stream.owesWritable = true } else if finish { stream.isFinishing = true }
        return accepted
    }

    func unsentBytes(_ id: QUICStreamID) -> Int {
        streams[id].map { $0.resetCode == nil ? $0.sent.count - $0.acknowledged : 0 } ?? 0
    }

    func read(_ id: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int) throws(QUICError) -> StreamRead {
        let stream = try known(id)
        guard stream.receives else { throw QUICError(.streamState, "\(id) only sends", advice: "") }
        let unread = stream.unread
        let count = stream.arrived.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[stream.taken..<stream.taken + unread]))
        }
        guard count >= 0, count <= unread else {
            note("\(count) bytes of \(unread) were taken")
            return StreamRead(count: 0, finished: false)
        }
        stream.taken += count
        if stream.unread == 0 { stream.readableReported = false }
        if stream.hasEnd, stream.unread == 0 { stream.endWasRead = true }
        let finished = stream.endWasRead
        forgetIfDone(stream)
        return StreamRead(count: count, finished: finished)
    }

    func readableBytes(_ id: QUICStreamID) -> Int { streams[id]?.unread ?? 0 }

    func isEarly(_ id: QUICStreamID) -> Bool { streams[id].map { $0.taken < $0.earlyEnd } ?? false }

    func reset(_ id: QUICStreamID, code: UInt64) {
        guard ownClose == nil, let stream = streams[id], stream.sends, stream.resetCode == nil, !stream.isClosed else {
            return
        }
        checkCode(code, "\(id) is reset")
        stream.resetCode = code
    }

    func stopSending(_ id: QUICStreamID, code: UInt64) {
        guard ownClose == nil, let stream = streams[id], stream.receives, stream.stopCode == nil, !stream.peerReset
        else { return }
        checkCode(code, "\(id) is stopped")
        stream.stopCode = code
        stream.readableReported = false
        forgetIfDone(stream)
    }

    func close(code: UInt64, reason: String) {
        if ownClose != nil { note("closed twice") }
        checkCode(code, "the connection is closed (\(reason))")
        // Whatever a peer says, it is the peer's fault.
        if code == HTTP3ErrorCode.internalError.rawValue { note("closed with H3_INTERNAL_ERROR: \(reason)") }
        ownClose = code
    }

    // MARK: The peer

    /// The peer opens a stream, if it hasn't yet.
    func peerOpens(_ id: QUICStreamID) -> Stream? {
        guard id.isClientInitiated == isServer else { return nil }
        if let stream = all.first(where: { $0.id == id }) { return stream }
        let stream = insert(id, isLocal: false)
        events.append(.streamOpened(id))
        return stream
    }

    func peerSends(_ bytes: some Collection<UInt8>, finish: Bool, on stream: Stream) {
        guard stream.receives, !stream.hasEnd, !stream.peerReset, !stream.isClosed else { return }
        stream.arrived.append(contentsOf: bytes)
        if !isHandshakeComplete { stream.earlyEnd = stream.arrived.count }
        if finish { stream.hasEnd = true }
        if stream.stopCode == nil, !bytes.isEmpty || finish, !stream.readableReported {
            stream.readableReported = true
            events.append(.streamReadable(stream.id))
        }
        closeIfDone(stream)
    }

    func peerResets(_ stream: Stream, code: UInt64) {
        guard stream.receives, !stream.peerReset, !stream.isClosed else { return }
        stream.peerReset = true
        stream.readableReported = false
        events.append(.streamReset(stream.id, code: code))
        closeIfDone(stream)
    }

    func peerStops(_ stream: Stream, code: UInt64) {
        guard stream.sends, !stream.wasStopped, !stream.isClosed else { return }
        stream.wasStopped = true
        stream.owesWritable = false
        if stream.resetCode == nil { stream.resetCode = code }
        events.append(.stopSending(stream.id, code: code))
    }

    func peerAcknowledges(_ stream: Stream) {
        guard stream.sends, !stream.isClosed else { return }
        stream.acknowledged = stream.sent.count
        if stream.owesWritable, stream.resetCode == nil {
            stream.owesWritable = false
            events.append(.streamWritable(stream.id))
        }
        closeIfDone(stream)
    }

    func peerAllows(bidirectional: Int, unidirectional: Int) {
        credit.bidirectional += bidirectional
        credit.unidirectional += unidirectional
        if bidirectional > 0, owesCredit.bidirectional {
            owesCredit.bidirectional = false
            events.append(.streamsAvailable(bidirectional: true))
        }
        if unidirectional > 0, owesCredit.unidirectional {
            owesCredit.unidirectional = false
            events.append(.streamsAvailable(bidirectional: false))
        }
    }

    // MARK: -

    private func insert(_ id: QUICStreamID, isLocal: Bool) -> Stream {
        let stream = Stream(id, isLocal: isLocal)
        streams[id] = stream
        all.append(stream)
        return stream
    }

    private func known(_ id: QUICStreamID) throws(QUICError) -> Stream {
        guard let stream = streams[id] else { throw QUICError(.unknownStream, "there is no \(id)", advice: "") }
        return stream
    }

    private func checkOpen() throws(QUICError) {
        guard ownClose == nil else { throw QUICError(.closed, "the connection is closed", advice: "") }
    }

    /// A stream that only receives is done with its end; one that sends when the peer has acknowledged that, too.
    private func closeIfDone(_ stream: Stream) {
        guard !stream.isClosed, !stream.receives || stream.hasEnd || stream.peerReset, stream.isSent else { return }
        stream.isClosed = true
        events.append(.streamClosed(stream.id))
        forgetIfDone(stream)
    }

    private func forgetIfDone(_ stream: Stream) {
        guard stream.isClosed, stream.isReadOut else { return }
        stream.isForgotten = true
        streams[stream.id] = nil
    }

    private func note(_ text: String) { if finding == nil { finding = FuzzFinding(text) } }

    /// RFC 9114 section 8.1 and RFC 9204 section 6.
    private func checkCode(_ code: UInt64, _ what: String) {
        guard (0x100...0x110).contains(code) || (0x200...0x202).contains(code) else {
            return note("\(what) with \(code)")
        }
    }
}
