internal import HTTPTypes
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

/// A unidirectional stream that the peer opened (RFC 9114 section 6.2).
///
/// ```
///  untyped --the type's varint--> control | encoder | decoder | ignored
/// ```
struct InboundStream {
    enum Kind {
        case untyped, control, encoder, decoder, ignored

        /// Whether the connection can't go on without it.
        var isCritical: Bool { self == .control || self == .encoder || self == .decoder }
    }

    var kind = Kind.untyped
    var type = VarintReader()
}

/// The unidirectional streams that we open, each when there is something to say on it.
struct OutboundStreams {
    /// Bytes that may wait for the peer's flow control, of each stream: a peer that takes nothing while it makes us say more is
    /// closed with H3_EXCESSIVE_LOAD.
    static let limit = 64 << 10
    /// Bytes of the encoder stream that have not left, above which no section makes more.
    static let heldUp = 4 << 10

    var control = ByteBuffer()
    var encoder = ByteBuffer()
    var decoder = ByteBuffer()
    var controlStream: QUICStreamID?
    var encoderStream: QUICStreamID?
    var decoderStream: QUICStreamID?

    func contains(_ stream: QUICStreamID) -> Bool {
        stream == controlStream || stream == encoderStream || stream == decoderStream
    }

    var isWaiting: Bool {
        control.readableBytes > 0 || encoder.readableBytes > 0 || decoder.readableBytes > 0
    }

    var isTooFull: Bool {
        control.readableBytes > Self.limit || encoder.readableBytes > Self.limit || decoder.readableBytes > Self.limit
    }
}

extension Session {
    // MARK: Sending

    func flushOutbound() {
        guard state == .open || state == .draining else { return }
        decoder.takeInstructions(into: &outbound.decoder)
        guard outbound.isWaiting else { return }
        var streams = outbound
        // The control stream comes first: the peer must see SETTINGS before it can use the others.
        flush(&streams.control, &streams.controlStream, type: nil)
        if streams.controlStream != nil {
            flush(&streams.encoder, &streams.encoderStream, type: StreamType.qpackEncoder)
            flush(&streams.decoder, &streams.decoderStream, type: StreamType.qpackDecoder)
        }
        outbound = streams
        if outbound.isTooFull {
            fail(.connection(.excessiveLoad, "the peer doesn't read what it must"))
        }
    }

    private func flush(_ bytes: inout ByteBuffer, _ stream: inout QUICStreamID?, type: UInt64?) {
        guard bytes.readableBytes > 0 else { return }
        do throws(QUICError) {
            if stream == nil {
                guard let opened = try connection.openStream(bidirectional: false) else { return }
                stream = opened
                connection.setPriority(StreamPriority(urgency: 0), of: opened)
                if let type {
                    var first = ByteBuffer()
                    first.writeVarint(type)
                    first.writeBuffer(&bytes)
                    bytes = first
                }
            }
            guard let stream else { return }
            try connection.write(&bytes, to: stream)
            if bytes.readableBytes == 0 { bytes.clear() } else { bytes.discardReadBytes() }
        } catch {
            // The peer's STOP_SENDING or the connection's end: its event is on the way.
        }
    }

    // MARK: Receiving

    func readUnidirectional(_ stream: QUICStreamID) {
        guard state != .closed, inbound[stream] != nil else { return }
        if inbound[stream]?.kind == .decoder, peerSettings == nil {
            heldDecoderStream = stream
            return
        }
        var violation: Violation?
        var finished = false
        do throws(QUICError) {
            let read = try connection.read(stream) { bytes in
                do throws(Violation) {
                    return try take(bytes, from: stream)
                } catch {
                    violation = error
                    return bytes.count
                }
            }
            finished = read.finished
        } catch {
            return
        }
        if let violation { return fail(violation) }
        let kind = inbound[stream]?.kind ?? .ignored
        if finished, kind.isCritical {
            return fail(.connection(.closedCriticalStream, "the peer ended a stream that the connection needs"))
        }
        if finished { inbound[stream] = nil }
        if kind == .ignored, !finished {
            inbound[stream] = nil
            connection.stopSending(stream, code: HTTP3ErrorCode.streamCreationError.rawValue)
        }
        if kind == .encoder { retryBlocked() }
        // Its bytes stayed where they are until the settings came, perhaps with these.
        if kind == .decoder, peerSettings == nil { heldDecoderStream = stream }
        for frame in takeControlFrames() {
            guard state != .closed else { return }
            do throws(Violation) {
                try received(frame)
            } catch {
                return fail(error)
            }
        }
    }

    /// Frames can't be acted on while bytes are shown: that calls the connection.
    private func takeControlFrames() -> [ControlFrame] {
        defer { controlFrames.removeAll() }
        return controlFrames
    }

    /// - Returns: the bytes that were taken.
    private func take(_ bytes: UnsafeRawBufferPointer, from stream: QUICStreamID) throws(Violation) -> Int {
        var offset = 0
        if inbound[stream]?.kind == .untyped {
            guard let type = inbound[stream]?.type.read(bytes, &offset) else { return offset }
            inbound[stream]?.kind = try kind(ofType: type)
        }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
        switch inbound[stream]?.kind {
        case .control:
            while let frame = try control.next(bytes, &offset) { controlFrames.append(frame) }
        case .encoder: try decoder.read(rest)
        case .decoder:
            guard peerSettings != nil else { return offset }
            try encoder.read(rest)
        default: break
        }
        return bytes.count
    }

    private func kind(ofType type: UInt64) throws(Violation) -> InboundStream.Kind {
        switch type {
        case StreamType.control, StreamType.qpackEncoder, StreamType.qpackDecoder:
            guard peerStreams.insert(type).inserted else {
                throw .connection(.streamCreationError, "a second stream of type \(type)")
            }
            return type == StreamType.control ? .control : type == StreamType.qpackEncoder ? .encoder : .decoder
        case StreamType.push:
            // Only servers push, and only what a client allowed (RFC 9114 section 6.2.2), which ours never does.
            throw isServer
                ? .connection(.streamCreationError, "a client opened a push stream")
                : .connection(.idError, "a push that was not allowed")
        default: return .ignored
        }
    }
}
