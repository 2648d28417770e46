import CQUICShim

/// The handshake's end, 0-RTT, and what failures mean.
extension QUICEngineConnection {
    func handshakeCompleted() {
        guard let shim else { return }
        if !isServer, llq_conn_early_data_possible(shim) != 0, earlyData != .rejected { earlyData = .accepted }
        // The TLS library takes long to say the second.
        if isServer, llq_tls_resumed(shim) != 0, llq_tls_early_data_accepted(shim) != 0 { earlyData = .accepted }
        let info = readHandshake(shim)
        // Early bytes are of the ticket's protocol, and the server has given them to another one (RFC 8446 section 4.2.10).
        if !isServer, earlyData == .accepted, info.applicationProtocol != client?.sessionTicket?.applicationProtocol {
            return endForOtherProtocol()
        }
        handshake = info
        earlyStreams = []
        if let interval = settings.keepAliveInterval { llq_conn_set_keep_alive(shim, interval.addable) }
        endpoint.handshakeEnded(self, completed: info)
        emit(.handshakeCompleted(info))
        if isServer {
            finishServerHandshake(shim)
        } else {
            learnResetTokens(shim)
            reopenStreams()
        }
        streamCredit(bidirectional: true)
        streamCredit(bidirectional: false)
    }

    private func endForOtherProtocol() {
        endpoint.counters.protocolErrors += 1
        end(
            .handshakeFailed(
                QUICError(
                    .handshakeFailed, "The server took 0-RTT data of another protocol than it chose",
                    advice: "Correct the server; until then connect without 0-RTT.")))
        let packet = writeClose(
            llq_close(kind: Int32(LLQ_CLOSE_TRANSPORT), code: Self.illegalParameter, reason: nil, reason_length: 0))
        endpoint.retire(self, packet: packet)
    }

    /// CRYPTO_ERROR with TLS's illegal_parameter (RFC 9001 section 4.8).
    private static let illegalParameter: UInt64 = 0x12f

    /// A server's handshake is confirmed when it is complete (RFC 9001 section 4.1.2): ticket and address token go out, and
    /// nothing needs the TLS session any more.
    private func finishServerHandshake(_ shim: OpaquePointer) {
        _ = llq_tls_send_ticket(shim)
        var token = [UInt8](repeating: 0, count: Int(LLQ_MAX_TOKEN_LENGTH))
        var remote = lastPath.remote.shim
        let length = llq_regular_token(
            &token, endpoint.staticKey, endpoint.staticKey.count, llq_conn_version(shim), &remote,
            llq_wall_clock() &* 1_000_000_000)
        if length > 0 { _ = llq_conn_submit_token(shim, token, length) }
        emit(.handshakeConfirmed)
        llq_tls_release(shim)
    }

    private func learnResetTokens(_ shim: OpaquePointer) {
        let length = Int(LLQ_RESET_TOKEN_LENGTH)
        var tokens = [UInt8](repeating: 0, count: 16 * length)
        let count = Int(llq_conn_peer_reset_tokens(shim, &tokens, 16))
        for index in 0..<count { learn(resetToken: Array(tokens[index * length..<(index + 1) * length])) }
    }

    /// The ALPN protocol agreed on, also before the handshake is complete; nil: not known yet, or none.
    public var applicationProtocol: String? {
        if let handshake { return handshake.applicationProtocol }
        return shim.flatMap { shim in Self.text { llq_tls_alpn(shim, $0, $1) } }
    }

    private func readHandshake(_ shim: OpaquePointer) -> HandshakeInfo {
        var certificates: [[UInt8]] = []
        var length = 0
        while certificates.count < 16, let bytes = llq_tls_peer_certificate(shim, certificates.count, &length) {
            certificates.append(Array(UnsafeBufferPointer(start: bytes, count: length)))
        }
        return HandshakeInfo(
            applicationProtocol: Self.text { llq_tls_alpn(shim, $0, $1) },
            serverName: Self.text { buffer, capacity in
                buffer.withMemoryRebound(to: CChar.self, capacity: capacity) {
                    llq_tls_server_name(shim, $0, capacity)
                }
            },
            resumed: llq_tls_resumed(shim) != 0, earlyData: earlyData, peerCertificates: certificates,
            cipherSuite: Self.text { buffer, capacity in
                buffer.withMemoryRebound(to: CChar.self, capacity: capacity) {
                    llq_tls_cipher_suite(shim, $0, capacity)
                }
            } ?? "", version: QUICVersion(rawValue: llq_conn_version(shim)))
    }

    private static func text(_ fill: (UnsafeMutablePointer<UInt8>, Int) -> Int) -> String? {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 512) { buffer in
            guard let base = buffer.baseAddress else { return nil }
            let length = fill(base, buffer.count)
            return length == 0 ? nil : String(decoding: buffer[0..<length], as: UTF8.self)
        }
    }

    // MARK: refused 0-RTT

    /// ngtcp2 has forgotten every stream opened so far. They are opened again in the same order, so they get the
    /// same numbers, and what they carried is sent again, once.
    func earlyDataRejected() {
        earlyData = .rejected
        for id in datagramsInFlight.removeAll() { emit(.datagramLost(id: id)) }
        sendQueue.removeAll()
        for stream in earlyStreams {
            stream.isQueued = false
            stream.isBlocked = false
            stream.finWasSent = false
            stream.finHadBytes = false
            stream.endWasAcknowledged = false
            awaitLoneEnd(of: stream, false)
            stream.awaitsReopening = true
            stream.sendBuffer.rewind()
            if let code = stream.resetCode { endSending(on: stream, code: code) }
            streamsToReopen.append(stream)
        }
        earlyStreams = []
        emit(.earlyDataRejected)
    }

    func reopenStreams() {
        guard let shim else { return }
        while let stream = streamsToReopen.first {
            var id: Int64 = -1
            guard llq_conn_open_stream(shim, stream.id.isBidirectional ? 1 : 0, &id) == 0 else { return }
            assert(UInt64(id) == stream.id.rawValue, "a stream opened again has its old number")
            _ = streamsToReopen.popFirst()
            stream.awaitsReopening = false
            if let code = stream.resetCode { _ = llq_conn_reset_stream(shim, id, code) }
            if let code = stream.stopCode { _ = llq_conn_stop_sending(shim, id, code) }
            queueForSending(stream)
        }
    }

    // MARK: failure

    /// An error of ngtcp2, answered on the wire where that is right, ends the connection.
    func fail(_ result: Int32) {
        guard let shim else { return }
        if isClosed {
            // It was lingering to send what was written before a close.
            pendingClose = nil
            endpoint.retire(self, packet: nil)
            return
        }
        switch Int(result) {
        case Int(LLQ_DRAINING):
            end(gotStatelessReset ? .statelessReset : peerCloseReason(shim))
            if gotStatelessReset { endpoint.counters.statelessResetsReceived += 1 }
            endpoint.retire(self, packet: nil)
        case Int(LLQ_IDLE):
            end(.idleTimeout)
            endpoint.retire(self, packet: nil)
        case Int(LLQ_HANDSHAKE_TIMEOUT):
            end(.handshakeTimeout)
            endpoint.retire(self, packet: nil)
        case Int(LLQ_DROP), Int(LLQ_RETRY):
            // Of a first datagram that the handshake can't begin with nothing is left, so that what the client sends next, or
            // again, can begin another.
            end(.abandoned)
            endpoint.retire(self, packet: nil, lingers: datagramsReceived > 1)
        case Int(LLQ_CLOSING):
            end(.abandoned)
            endpoint.retire(self, packet: nil)
        case Int(LLQ_TOO_MUCH):
            endForReadMemory()
        default:
            let close = llq_conn_close_for_error(shim, result)
            if Int(close.kind) == Int(LLQ_CLOSE_SILENT) {
                end(.versionNegotiation(offered: offeredVersions))
                endpoint.retire(self, packet: nil)
            } else {
                endpoint.counters.protocolErrors += 1
                end(localFailure(shim, code: close.code, result: result))
                endpoint.retire(self, packet: writeClose(close))
            }
        }
    }

    /// ngtcp2 0.12 frees the record of a peer's unidirectional stream only with the connection, as 1.11 does when its first
    /// frame was RESET_STREAM, and nothing from outside can make it do so earlier. Measured on 0.12: 210 bytes each, besides
    /// what `endForReadMemory` bounds. One that has used up `maxPeerStreamRecords` is sent away with NO_ERROR; an honest one
    /// connects again.
    func endForStreamRecords() {
        endWithoutError("The connection has carried all the unidirectional streams it can; connect again")
    }

    /// ngtcp2 0.12 gives the peer another connection ID for each that it retires, and keeps the frame until it is acknowledged: a peer
    /// that retires all and acknowledges no such packet makes it keep eight more in every probe timeout, for as long as it likes. So
    /// it gets `maxGivenIDs`, and one more every four seconds, which is as often as a NAT may rebind all the time; but of these only as
    /// many again, as what isn't acknowledged stays however slowly it came. Who uses them up connects again.
    var hasUsedUpIDs: Bool {
        let earned = (now.nanoseconds - createdAt.nanoseconds) / Self.nanosecondsPerID
        return givenIDs - min(Int(clamping: earned), endpoint.maxGivenIDs) > endpoint.maxGivenIDs
    }

    private static let nanosecondsPerID: UInt64 = 4_000_000_000

    func endForGivenIDs() { endWithoutError("The connection has used up its connection IDs; connect again") }

    /// Ends the connection with ``QUICCloseReason/pathTooSmall``: its owner learned that its path takes no packets of 1,200 bytes. RFC
    /// 9000 section 14 lets nothing but CONNECTION_CLOSE leave on such a path. Does nothing on one that is closed.
    public func endForPathSize(now: QUICInstant) {
        advance(to: now)
        endWithoutError("The path takes no packets of 1,200 bytes any more", told: .pathTooSmall)
    }

    /// - Parameter told: what the application learns; nil: the same as the peer.
    func endWithoutError(_ reason: String, told: QUICCloseReason? = nil) {
        guard shim != nil, !isClosed else { return }
        end(told ?? .localTransport(code: 0, reason: reason))
        let packet = Array(reason.utf8).withUnsafeBufferPointer {
            writeClose(
                llq_close(
                    kind: Int32(LLQ_CLOSE_TRANSPORT), code: 0, reason: $0.baseAddress, reason_length: $0.count))
        }
        endpoint.retire(self, packet: packet)
    }

    /// Records why the connection ended and reports it; nothing is reported after it.
    func end(_ reason: QUICCloseReason) {
        guard !isClosed else { return }
        closeReason = reason
        if handshake == nil { endpoint.handshakeEnded(self, completed: nil) }
        emit(.closed(reason))
    }

    func writeClose(_ close: llq_close) -> WrittenClose? {
        guard let shim else { return nil }
        var close = close
        var path = llq_path()
        var ecn: UInt8 = 0
        var packet = [UInt8](repeating: 0, count: 1500)
        var brief = [UInt8](repeating: 0, count: Int(LLQ_BRIEF_CLOSE_LENGTH))
        var briefLength = 0
        let length = llq_conn_write_close(
            shim, &path, &ecn, &packet, packet.count, &brief, &briefLength, &close, now.nanoseconds)
        guard length > 0 else { return nil }
        return WrittenClose(
            bytes: Array(packet.prefix(length)), brief: Array(brief.prefix(briefLength)), path: QUICPath(path),
            ecn: ECNCodepoint(rawValue: ecn) ?? .notECT)
    }

    private func peerCloseReason(_ shim: OpaquePointer) -> QUICCloseReason {
        let close = llq_conn_peer_close(shim)
        let reason = String(
            decoding: UnsafeBufferPointer(start: close.reason, count: close.reason_length), as: UTF8.self)
        if Int(close.kind) == Int(LLQ_CLOSE_APPLICATION) {
            return .peerApplication(code: close.code, reason: reason)
        }
        if handshake == nil, (0x100...0x1ff).contains(close.code) {
            let alert = Int32(close.code & 0xff)
            return .handshakeFailed(
                QUICError(
                    .handshakeFailed, "The peer refused the TLS handshake", cause: Self.alertName(alert),
                    advice: alert == 120
                        ? "The two sides share no application protocol: compare their ALPN lists."
                        : "Compare certificates and protocols of both sides."))
        }
        return .peerTransport(code: close.code, reason: reason)
    }

    /// TRANSPORT_PARAMETER_ERROR, and VERSION_NEGOTIATION_ERROR (RFC 9368) for the versions among the parameters. They come in a TLS
    /// extension, so that TLS fails with them, and has no word for it.
    private static let parameterErrors: Set<UInt64> = [0x08, 0x11]

    private func localFailure(_ shim: OpaquePointer, code: UInt64, result: Int32) -> QUICCloseReason {
        let tlsError = llq_tls_error(shim)
        guard handshake == nil, tlsError != 0 else {
            return .localTransport(code: code, reason: errorName(result))
        }
        if llq_tls_pin_mismatch(shim) != 0 {
            return .handshakeFailed(
                QUICError(
                    .certificateRejected, "The server's public key is none of those pinned",
                    advice: "If the server's key was changed on purpose, update the pins; else someone is in between."))
        }
        if llq_tls_qlog_overflow(shim) != 0 {
            return .handshakeFailed(
                QUICError(
                    .handshakeFailed, "The server's transport parameters don't fit a qlog record",
                    advice: "Connect to this server without a trace."))
        }
        if Self.parameterErrors.contains(code) {
            return .handshakeFailed(
                QUICError(
                    .handshakeFailed,
                    "The \(isServer ? "client" : "server")'s transport parameters break a rule of QUIC",
                    cause: errorName(result),
                    advice: "The other side has a defect, or a setting that QUIC doesn't allow: TLS isn't to blame."))
        }
        let status = llq_tls_verify_status(shim)
        if status != 0 {
            return .handshakeFailed(
                CertificateProblem.error(
                    status: status, of: isServer ? "client" : "server", name: client?.serverName ?? ""))
        }
        if isServer, CertificateProblem.isMissing(tlsError) {
            return .handshakeFailed(
                QUICError(
                    .certificateRejected, "The client showed no certificate",
                    advice: "Give the client an identity from an authority that this server trusts."))
        }
        return .handshakeFailed(
            QUICError(
                .handshakeFailed, "The TLS handshake failed", cause: tlsErrorName(tlsError),
                advice: "Compare certificates and protocols of both sides."))
    }

    private static func alertName(_ alert: Int32) -> String {
        llq_tls_alert_name(alert).map { String(cString: $0) } ?? "alert \(alert)"
    }
}
