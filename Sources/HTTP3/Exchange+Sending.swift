internal import DequeModule
internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

extension Exchange {
    /// A body no longer than this is copied behind its frame's header, and leaves with it.
    private static let copiedBody = 4 << 10

    // MARK: Parts

    /// Sends a request's header section, which the session has gathered, with the body if it is whole.
    /// - Parameter length: the content length that the section states.
    func sendRequest(
        _ method: HTTPRequest.Method, length: UInt64?, body: ByteBuffer?, trailers: HTTPFields?, finish: Bool
    ) throws {
        declaredLength = length
        self.method = method
        try sendSection(body: body, trailers: trailers, finish: finish)
        session.meter.count(.requests)
    }

    /// Sends a response's header section, with the body if it is whole. A body that the request's method or the status forbids is
    /// left out (RFC 9110 section 6.4.1).
    func send(_ response: HTTPResponse, body: ByteBuffer?, trailers: HTTPFields?, finish: Bool) throws {
        guard case .head = sending else { throw sendingError("a response was sent before") }
        session.lines.removeAll()
        let status = response.status
        let length = try session.lines.append(response, status: status)
        if status.kind == .informational {
            if status == .continue { awaitsContinue = false }
            try sendInformational()
            return
        }
        hasNoBody = method == .head || status.code == 204 || status.code == 304
        declaredLength = hasNoBody ? 0 : length
        try sendSection(
            body: hasNoBody ? nil : body, trailers: hasNoBody ? nil : trailers, finish: finish || hasNoBody)
    }

    private func sendInformational() throws {
        var buffer = ByteBuffer()
        try session.encodeLines(for: id, into: &buffer)
        out.append(buffer)
        flush()
    }

    private func sendSection(body: ByteBuffer?, trailers: HTTPFields?, finish: Bool) throws {
        guard case .head = sending else { throw sendingError("a header section was sent before") }
        let length = body?.readableBytes ?? 0
        if let declaredLength, finish ? UInt64(length) != declaredLength : UInt64(length) > declaredLength {
            throw Self.wrongLength
        }
        var buffer = session.takeScratch(256 + (length <= Self.copiedBody ? length : 0))
        try session.encodeLines(for: id, into: &buffer)
        sending = .body
        endWork()
        sentLength = UInt64(length)
        append(body, behind: &buffer)
        do {
            try appendTrailers(trailers, behind: &buffer)
        } catch {
            abandonSending()
            throw error
        }
        if finish { noteFinish() }
        if out.isEmpty, (try? give(&buffer)) == true {
            session.keepScratch(buffer)
        } else if buffer.readableBytes > 0 {
            out.append(buffer)
        }
        flush()
    }

    /// Appends a DATA frame to what is gathered, or leaves a large one as it is.
    private func append(_ body: ByteBuffer?, behind buffer: inout ByteBuffer) {
        guard var body, body.readableBytes > 0 else { return }
        session.meter.count(.bodyBytesSent, by: body.readableBytes)
        buffer.writeFrameHeader(FrameType.data, length: body.readableBytes)
        if body.readableBytes <= Self.copiedBody {
            buffer.writeBuffer(&body)
        } else {
            out.append(buffer)
            out.append(body)
            buffer = ByteBuffer()
        }
    }

    private func appendTrailers(_ trailers: HTTPFields?, behind buffer: inout ByteBuffer) throws {
        guard let trailers, !trailers.isEmpty else { return }
        session.lines.removeAll()
        try session.lines.append(trailers, isTrailer: true)
        try session.encodeLines(for: id, into: &buffer)
    }

    private func noteFinish() {
        finishes = true
        if session.isServer { session.meter.count(.responses) }
    }

    /// Queues a part of the body.
    func sendBody(_ bytes: ByteBuffer?, trailers: HTTPFields? = nil, finish: Bool) throws {
        if hasNoBody, case .ended = sending { return }
        guard case .body = sending, !finishes else { throw sendingError("the body is over, or not begun") }
        guard out.isEmpty else { throw HTTP3Error.state("another task writes the body") }
        let length = sentLength + UInt64(bytes?.readableBytes ?? 0)
        if let declaredLength, length > declaredLength || (finish && length != declaredLength) {
            abandonSending()
            throw Self.wrongLength
        }
        sentLength = length
        var buffer = ByteBuffer()
        append(bytes, behind: &buffer)
        do {
            try appendTrailers(trailers, behind: &buffer)
        } catch {
            abandonSending()
            throw error
        }
        if buffer.readableBytes > 0 { out.append(buffer) }
        if finish { noteFinish() }
        flush()
    }

    /// The message can't be completed as it was begun.
    private func abandonSending() {
        failSending(.state("the message was abandoned"), reset: .internalError)
        retireIfDone()
    }

    private func sendingError(_ what: String) -> HTTP3Error {
        if case .failed(let error) = sending { return error }
        return .state(what)
    }

    private static let wrongLength = HTTP3Error(
        .invalidMessage, "the body's length isn't the content length", advice: "Send as many bytes as were announced.")

    // MARK: The stream

    func writable() {
        flush()
        if writerSince != nil { clockWriter(waits: true) }
    }

    /// Gives the stream what it takes.
    func flush() {
        do throws(QUICError) {
            while var first = out.popFirst() {
                guard try give(&first) else { return out.prepend(first) }
            }
            if finishes, case .body = sending {
                var nothing = ByteBuffer()
                try connection.write(&nothing, to: id, finish: true)
                sending = .ended
            }
        } catch {
            // The peer's STOP_SENDING or the connection's end; its event, which says why, is on the way.
            out.removeAll()
            if writer == nil { return }
            return
        }
        guard out.isEmpty, let writer else { return }
        self.writer = nil
        clockWriter(waits: false)
        writer.finish(.success(()))
    }

    /// Hands the stream bytes that nothing waits before, and the end behind the last of them.
    /// - Returns: whether it took them all.
    private func give(_ bytes: inout ByteBuffer) throws(QUICError) -> Bool {
        let ends = finishes && out.isEmpty
        let before = bytes.readableBytes
        try connection.write(&bytes, to: id, finish: ends)
        given += before - bytes.readableBytes
        if bytes.readableBytes < before { session.answerAdvanced() }
        guard bytes.readableBytes == 0 else { return false }
        if ends { sending = .ended }
        return true
    }

    /// Whether everything that was queued is with the stream.
    var isFlushed: Bool { out.isEmpty }

    /// Resumes the waiter once everything that was queued is with the stream.
    func awaitFlush(_ waiter: Waiter<Void>) {
        if case .failed(let error) = sending { return waiter.finish(.failure(error)) }
        guard !out.isEmpty else { return waiter.finish(.success(())) }
        guard writer == nil || writer?.isWaiting == false else {
            return waiter.finish(.failure(HTTP3Error.state("another task writes the body")))
        }
        writer = waiter
        clockWriter(waits: true)
    }

    // MARK: Answers of our own

    /// Answers in place of a handler, whatever state the request is in.
    /// - Parameter failure: what the handler threw, if one did.
    func refuse(_ status: HTTPResponse.Status, after failure: (any Error)? = nil) {
        guard case .head = sending else { return }
        let (head, body) =
            session.refusal?(status, failure)
            ?? (HTTPResponse(status: status, headerFields: [.contentLength: "0"]), ByteBuffer())
        do {
            try send(head, body: body, trailers: nil, finish: true)
        } catch {
            abandon(.internalError, .state("no answer can be sent"))
        }
    }
}
