internal import CHTTP3Shim
internal import DequeModule
internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

extension Exchange {
    /// Bytes of a body handed to its reader at a time.
    private static let readSize = 64 << 10

    /// Interim responses to one request; more are a waste of time on purpose.
    private static let informationalLimit = 100

    /// Frames in a row that say nothing, at once and then in each half minute. They cost their sender next to nothing, and hold up
    /// nobody's flow control, read or not; now and then they may keep a stream alive.
    static let idleFramesLimit = 1000

    /// What one look at the stream's bytes led to.
    private enum Step {
        case needsMore
        case data
        case section(FieldDecoder.Outcome)
        case violation(Violation)
    }

    func readable() {
        parse()
        announce()
        retireIfDone()
    }

    /// Server: lets the request be answered. What came with its header section was read before, so that most handlers find the
    /// whole request there.
    func announce() {
        guard let head = announced else { return }
        announced = nil
        if case .failed = receiving { return }
        guard session.state != .closed else { return }
        session.onRequest?(self, head)
    }

    /// Works off what has come, up to bytes of a body that nobody asked for.
    func parse() {
        guard !isParsing else { return }
        isParsing = true
        defer { isParsing = false }
        while !isReceivingOver, blocked == nil, session.state != .closed || isSalvaging {
            if frame.type == FrameType.data {
                guard serveReader() else { return }
                continue
            }
            if sawEnd { return streamEnded() }
            switch step() {
            case .needsMore: if !sawEnd { return }
            case .data: break
            case .section(let outcome): received(outcome)
            case .violation(let violation): return session.fail(violation, of: self)
            }
        }
    }

    // MARK: Frames

    private func step() -> Step {
        var step = Step.needsMore
        do throws(QUICError) {
            if case .head = receiving, session.isServer, !session.isHandshakeComplete, connection.isEarly(id) {
                isEarly = true
            }
            let read = try connection.read(id) { bytes in take(bytes, &step) }
            sawEnd = read.finished
        } catch {
            return .needsMore
        }
        return step
    }

    /// Takes bytes until something is to be done with the connection, which can't be called meanwhile.
    private func take(_ bytes: UnsafeRawBufferPointer, _ step: inout Step) -> Int {
        var offset = 0
        while true {
            if frame.type == nil {
                guard frame.readHeader(bytes, &offset) else { return offset }
                do throws(Violation) {
                    try admit()
                } catch {
                    step = .violation(error)
                    return bytes.count
                }
                // Encoded it is no longer than its lines, unless its encoder wastes our time. The rest isn't read.
                if frame.type == FrameType.headers, frame.left > UInt64(session.limits.fieldSectionSize + 64) {
                    step = .section(.tooLarge)
                    return bytes.count
                }
            }
            let count = Int(min(frame.left, UInt64(bytes.count - offset)))
            let part = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
            switch frame.type {
            case FrameType.data:
                if frame.left == 0 {
                    frame.took(0)
                    continue
                }
                step = .data
                return offset
            case FrameType.headers:
                offset += count
                frame.took(count)
                if frame.type != nil {
                    block.append(contentsOf: part)
                    return offset
                }
                step = decode(part)
                return offset
            default:
                offset += count
                frame.took(count)
                if frame.type != nil { return offset }
            }
        }
    }

    private func decode(_ last: UnsafeRawBufferPointer) -> Step {
        let limit = session.limits.fieldSectionSize
        do throws(Violation) {
            guard !block.isEmpty else {
                return .section(try session.decoder.decode(last, stream: id.rawValue, limit: limit))
            }
            block.append(contentsOf: last)
            let whole = block
            block = []
            var outcome: Result<FieldDecoder.Outcome, Violation>?
            whole.withUnsafeBytes { bytes in
                do throws(Violation) {
                    outcome = .success(try session.decoder.decode(bytes, stream: id.rawValue, limit: limit))
                } catch {
                    outcome = .failure(error)
                }
            }
            guard let outcome else { return .needsMore }
            return .section(try outcome.get())
        } catch {
            return .violation(error)
        }
    }

    /// Judges a frame by its header (RFC 9114 sections 4.1 and 7.2).
    private func admit() throws(Violation) {
        guard let type = frame.type else { return }
        switch type {
        case FrameType.data:
            guard case .body = receiving, !sawTrailers else {
                throw .connection(.frameUnexpected, "DATA where none may be")
            }
            try frame.left == 0 ? countIdleFrame(.now()) : count(frame.left)
        case FrameType.headers:
            guard !sawTrailers else { throw .connection(.frameUnexpected, "HEADERS behind the trailers") }
            idleFrames = RateLimit(Self.idleFramesLimit)
        case FrameType.pushPromise:
            throw session.isServer
                ? .connection(.frameUnexpected, "a client sent PUSH_PROMISE")
                : .connection(.idError, "a push that was not allowed")
        case _ where FrameType.belongsOnControlStream(type):
            throw .connection(.frameUnexpected, "a frame of the control stream on a request stream")
        case _ where FrameType.isReservedByHTTP2(type):
            throw .connection(.frameUnexpected, "a frame of HTTP/2")
        default: try countIdleFrame(.now())
        }
    }

    func countIdleFrame(_ now: NIODeadline) throws(Violation) {
        guard idleFrames.admits(now) else {
            throw .stream(.excessiveLoad, "more than \(Self.idleFramesLimit) frames in a row say nothing")
        }
    }

    private func count(_ length: UInt64) throws(Violation) {
        idleFrames = RateLimit(Self.idleFramesLimit)
        receivedLength += length
        if let expectedLength, receivedLength > expectedLength {
            throw .stream(.messageError, "the body is longer than the content length")
        }
        if let limit = session.limits.bodySize, receivedLength > limit { isBodyTooLarge = true }
    }

    // MARK: Sections

    func retryBlocked() {
        guard var section = blocked, !isReceivingOver else { return }
        blocked = nil
        do throws(Violation) {
            received(
                try session.decoder.resume(&section, stream: id.rawValue, limit: session.limits.fieldSectionSize))
        } catch {
            return session.fail(error, of: self)
        }
        parse()
        announce()
        retireIfDone()
    }

    private func received(_ outcome: FieldDecoder.Outcome) {
        guard !isReceivingOver else { return }
        switch outcome {
        case .blocked(let section):
            blocked = section
            guard session.blocked.count < session.limits.blockedStreams else {
                return session.fail(
                    .connection(.qpackDecompressionFailed, "more streams wait for table entries than allowed"))
            }
            session.blocked.append(id)
        case .tooLarge: sectionTooLarge()
        case .decoded:
            do throws(Violation) {
                try interpret()
            } catch {
                session.fail(error, of: self)
            }
        }
    }

    private func interpret() throws(Violation) {
        let section = session.decoder.section
        if case .body = receiving {
            sawTrailers = true
            trailers = try session.messages.trailers(section)
        } else if session.isServer {
            let head = try session.messages.request(section)
            receiving = .body
            deadline = nil
            expectedLength = head.contentLength
            method = head.request.method
            awaitsContinue = head.expectsContinue
            if !isPriorityUpdated, head.priority != priority { setPriority(head.priority) }
            session.meter.count(.requests)
            announced = head
        } else {
            try interpretResponse(try session.messages.response(section))
        }
    }

    private func interpretResponse(_ head: ResponseHead) throws(Violation) {
        guard head.response.status.kind != .informational else {
            informationalCount += 1
            guard informationalCount <= Self.informationalLimit else {
                throw .stream(.excessiveLoad, "more than \(Self.informationalLimit) interim responses")
            }
            onInformational?(head.response)
            return
        }
        receiving = .body
        let status = head.response.status.code
        // RFC 9110 section 6.4.1: their length is of the body that another answer would have.
        let hasNoBody = method == .head || status == 204 || status == 304
        expectedLength = hasNoBody ? 0 : head.contentLength
        if let waiter = responseWaiter, waiter.claim() {
            responseWaiter = nil
            waiter.resume(with: .success(head.response))
        } else {
            response = head.response
        }
    }

    private func sectionTooLarge() {
        session.meter.count(.malformed)
        let error = HTTP3Error(
            .fieldSectionTooLarge, "the peer's section has more than \(session.limits.fieldSectionSize) bytes",
            advice: "Allow more (HTTP3Limits.fieldSectionSize), or ask for less.", protocolCode: .requestCancelled)
        // A trailer section that came with the header section is before any handler, too: nobody else would answer.
        if session.isServer, !isHandling, case .head = sending {
            announced = nil
            failReceiving(error, stop: .noError)
            return refuse(.requestHeaderFieldsTooLarge)
        }
        session.isServer ? failReceiving(error, stop: .excessiveLoad) : abandon(.requestCancelled, error)
    }

    private func streamEnded() {
        guard frame.isBetweenFrames else {
            return session.fail(.connection(.frameError, "a stream ends within a frame"))
        }
        if case .head = receiving {
            let violation: Violation =
                session.isServer
                ? .stream(.requestIncomplete, "the stream ended without a request")
                : .stream(.messageError, "the stream ended without a response")
            return session.fail(violation, of: self)
        }
        if let expectedLength, receivedLength != expectedLength {
            return session.fail(.stream(.messageError, "the body is shorter than the content length"), of: self)
        }
        receiving = .ended
        if !session.isServer { session.meter.count(.responses) }
        if let reader {
            self.reader = nil
            clockReader(waits: false)
            reader.finish(.success(nil))
        }
    }

    // MARK: The body

    /// Hands bytes of the present DATA frame to who waits for them.
    /// - Returns: false: nobody waits, or nothing is there.
    private func serveReader() -> Bool {
        if isSalvaging, !isBodyTooLarge, connection.readableBytes(id) > 0 {
            salvaged.append(readData())
            return true
        }
        guard let reader else { return false }
        guard !isBodyTooLarge else {
            bodyTooLarge()
            return false
        }
        guard connection.readableBytes(id) > 0 else { return noteEnd() }
        guard reader.claim() else {
            self.reader = nil
            return false
        }
        self.reader = nil
        reader.resume(with: .success(readData()))
        return true
    }

    /// Within a frame and with nothing to read: perhaps the stream has ended.
    private func noteEnd() -> Bool {
        if !sawEnd {
            guard let read = try? connection.read(id, maximumBytes: 0), read.finished else { return false }
            sawEnd = true
        }
        session.fail(.connection(.frameError, "a stream ends within a frame"))
        return false
    }

    private func readData() -> ByteBuffer {
        let count = Int(min(frame.left, UInt64(Self.readSize)))
        guard let read = try? connection.read(id, maximumBytes: count) else { return ByteBuffer() }
        frame.took(read.bytes.readableBytes)
        sawEnd = read.finished
        clockReader(waits: false, bytes: read.bytes.readableBytes)
        session.meter.count(.bodyBytesReceived, by: read.bytes.readableBytes)
        return read.bytes
    }

    private func bodyTooLarge() {
        isBodyTooLarge = false
        session.meter.count(.malformed)
        let error = HTTP3Error(
            .bodyTooLarge, "the peer's body has more than \(session.limits.bodySize ?? 0) bytes",
            advice: "Allow more (HTTP3Limits.bodySize), or ask for less.")
        session.isServer ? failReceiving(error, stop: .noError) : abandon(.requestCancelled, error)
    }

    /// What a reader gets without waiting; nil: nothing is there yet.
    func readAtOnce() -> Result<ByteBuffer?, HTTP3Error>? {
        guard reader == nil || reader?.isWaiting == false else {
            return .failure(.state("another task reads the body"))
        }
        if let piece = salvaged.popFirst() { return .success(piece) }
        parse()
        defer { retireIfDone() }
        switch receiving {
        case .failed(let error): return .failure(error)
        case .ended: return .success(nil)
        case .head, .body: break
        }
        guard frame.type == FrameType.data else { return nil }
        if isBodyTooLarge {
            bodyTooLarge()
            return readAtOnce()
        }
        guard connection.readableBytes(id) > 0 else {
            _ = noteEnd()
            if case .failed(let error) = receiving { return .failure(error) }
            return nil
        }
        return .success(readData())
    }

    func read(_ waiter: Waiter<ByteBuffer?>) {
        // Nothing is taken for a task that was cancelled on the way here.
        guard waiter.isWaiting else { return }
        if let reader, reader.isWaiting {
            return waiter.finish(.failure(HTTP3Error.state("another task reads the body")))
        }
        reader = waiter
        clockReader(waits: true)
        parse()
        if isReceivingOver, let reader { deliverRest(to: reader) }
        if reader != nil { askForBody() }
        retireIfDone()
    }

    /// Server: somebody waits for a body whose client waits to be asked for it.
    private func askForBody() {
        guard awaitsContinue else { return }
        awaitsContinue = false
        // Who has begun to send it, or has the answer, needs no asking.
        guard receivedLength == 0, case .head = sending else { return }
        // Where it can't be sent, the client sends the body unasked, after a time of its own.
        try? send(HTTPResponse(status: .continue), body: nil, trailers: nil, finish: false)
    }

    /// Hands a reader what is left once nothing more comes: salvaged bytes, the end, or why there is none.
    func deliverRest(to waiter: Waiter<ByteBuffer?>) {
        reader = nil
        readerSince = nil
        guard waiter.claim() else { return }
        if let piece = salvaged.popFirst() { return waiter.resume(with: .success(piece)) }
        if case .failed(let error) = receiving { return waiter.resume(with: .failure(error)) }
        waiter.resume(with: .success(nil))
    }

    /// The connection has ended, perhaps because everything was done: a message that is whole can still be read.
    func salvage() {
        guard case .body = receiving, !session.isBroken else { return }
        isSalvaging = true
        parse()
        isSalvaging = false
        if case .ended = receiving { return }
        salvaged.removeAll()
    }

    /// The reader was cancelled; what comes stays for the next.
    func forgetReader() {
        guard let reader, !reader.isWaiting else { return }
        self.reader = nil
        readerSince = nil
    }

    /// Nobody reads the body any more.
    func stopReading(_ code: HTTP3ErrorCode) {
        parse()
        guard !isReceivingOver else { return }
        failReceiving(.state("reading was stopped"), stop: code)
        retireIfDone()
    }

    /// Client: who waits for the response.
    func awaitResponse(_ waiter: Waiter<HTTPResponse>) {
        if let response {
            self.response = nil
            return waiter.finish(.success(response))
        }
        if case .failed(let error) = receiving { return waiter.finish(.failure(error)) }
        guard case .head = receiving, responseWaiter == nil else {
            return waiter.finish(.failure(HTTP3Error.state("the response was taken before")))
        }
        responseWaiter = waiter
    }
}
