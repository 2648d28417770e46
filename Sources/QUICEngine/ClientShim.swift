import CQUICShim

/// Makes the C side of a client connection.
enum ClientShim {
    static func make(
        client: ClientConfiguration, alpn: [UInt8], trust: TLSCredentials, priority: TLSPriority,
        context: ConnectionContext, path: QUICPath, id: ConnectionID, destination: ConnectionID, now: QUICInstant
    ) throws(QUICError) -> OpaquePointer {
        var tls = llq_tls()
        tls.credentials = UnsafeMutableRawPointer(trust.pointer)
        tls.priority = UnsafeMutableRawPointer(priority.pointer)
        tls.key_log = client.keyLog == nil ? 0 : 1
        var pins: [UInt8] = []
        switch client.verification {
        case .systemRoots, .certificateAuthority: tls.verify = Int32(LLQ_VERIFY_CHAIN)
        case .pinnedPublicKey(let hashes):
            tls.verify = Int32(LLQ_VERIFY_PIN)
            pins = hashes.flatMap { $0 }
        case .insecureNoVerification: tls.verify = Int32(LLQ_VERIFY_NONE)
        }
        let ticket = client.usableTicket
        let early =
            ticket != nil && client.earlyData && client.applicationProtocols.first == ticket?.applicationProtocol
        var settings = client.transport.shim(now: now)
        settings.first_version = client.firstVersion.rawValue
        settings.original_version = client.originalVersion?.rawValue ?? 0
        settings.use_preferred_address = client.usesPreferredAddress ? 1 : 0
        let versions = client.versions.filter(\.isAvailable).map(\.rawValue)
        let token = client.addressToken.flatMap { AddressToken.use($0, version: client.firstVersion) } ?? []
        var error: Int32 = 0
        let made = client.serverName.withCString { name in
            alpn.withUnsafeBufferPointer { names in
                pins.withUnsafeBufferPointer { pins in
                    (ticket?.session ?? []).withUnsafeBufferPointer { session in
                        (early ? ticket?.transportParameters ?? [] : []).withUnsafeBufferPointer { parameters in
                            token.withUnsafeBufferPointer { token in
                                versions.withUnsafeBufferPointer { versions -> OpaquePointer? in
                                    tls.server_name = name
                                    tls.alpn = names.baseAddress
                                    tls.alpn_length = names.count
                                    tls.pins = pins.baseAddress
                                    tls.pin_count = pins.count / 32
                                    tls.session = session.isEmpty ? nil : session.baseAddress
                                    tls.session_length = session.count
                                    tls.early_parameters = parameters.isEmpty ? nil : parameters.baseAddress
                                    tls.early_parameters_length = parameters.count
                                    settings.token = token.isEmpty ? nil : token.baseAddress
                                    settings.token_length = token.count
                                    var owner = context.owner
                                    var dcid = destination.shim
                                    var scid = id.shim
                                    var path = path.shim
                                    settings.versions = versions.baseAddress
                                    settings.version_count = versions.count
                                    return llq_conn_client_new(&owner, &dcid, &scid, &path, &settings, &tls, &error)
                                }
                            }
                        }
                    }
                }
            }
        }
        guard let made else {
            throw QUICError(
                .internalError, "The connection can't be made", cause: "code \(error)",
                advice: "Check the transport settings and the installed ngtcp2 and GnuTLS.")
        }
        return made
    }
}

extension ClientConfiguration {
    /// Throws `invalidConfiguration`.
    func validate() throws(QUICError) {
        try transport.validate()
        try QUICVersion.validate(versions, allowsReservedFirst: true)
    }

    /// The configuration for another attempt after ``QUICCloseReason/versionNegotiation(offered:)``: it starts with the
    /// version this client prefers of those the server offers, and sees to it that nobody in between made the two use a
    /// worse one (RFC 9368). nil: they share none, or this already is such an attempt.
    public func retry(offered: [QUICVersion]) -> ClientConfiguration? {
        guard originalVersion == nil, !versions.isEmpty,
            let common = versions.first(where: { $0.isAvailable && offered.contains($0) })
        else { return nil }
        var next = self
        next.originalVersion = firstVersion
        next.versions = [common] + versions.filter { $0.isAvailable && $0 != common }
        return next
    }

    /// The version of the first packet: that of the ticket, which the server speaks and which the ticket is of no use
    /// without, unless the server has just refused it.
    var firstVersion: QUICVersion {
        if originalVersion == nil, let version = goodTicket?.version, version.isAvailable, versions.contains(version) {
            return version
        }
        return versions.first ?? .v1
    }

    /// Tells clients apart that may not use each other's tickets: by how they check servers, and by the certificate that they
    /// show.
    var ticketHolder: [UInt8] {
        var writer = ByteWriter()
        switch verification {
        case .systemRoots: writer.append(0 as UInt8)
        case .certificateAuthority(let pem):
            writer.append(1 as UInt8)
            writer.append(lengthPrefixed: Array(pem.utf8))
        case .pinnedPublicKey(let hashes):
            writer.append(2 as UInt8)
            for hash in hashes { writer.append(lengthPrefixed: hash) }
        case .insecureNoVerification: writer.append(3 as UInt8)
        }
        writer.append(lengthPrefixed: Array((identity?.certificateChainPEM ?? "").utf8))
        return writer.bytes.withUnsafeBytes { TLSHash.sha256($0) } ?? []
    }

    /// The ticket, if it was issued for this server and client, in this version, and hasn't expired. One that ends later than a new
    /// one would is older than it says, or the clock was ahead: it may have come more than seven days ago (RFC 8446 section 4.6.1).
    var usableTicket: SessionTicket? { goodTicket.flatMap { $0.version == firstVersion ? $0 : nil } }

    private var goodTicket: SessionTicket? {
        let now = llq_wall_clock()
        guard let sessionTicket, sessionTicket.serverName == serverName, sessionTicket.expiresAt > now,
            sessionTicket.expiresAt - now <= TicketKeyRing.ticketLifetime, sessionTicket.holder == ticketHolder
        else { return nil }
        return sessionTicket
    }
}

extension TransportSettings {
    var sendBufferOfAll: Int { max(connectionSendBuffer, streamSendBuffer) }

    /// What all streams together may hold for one of this priority to take more. What is more urgent has something that the others
    /// can't fill, and the most urgent has something that no other can.
    func sendBuffer(for priority: StreamPriority) -> Int {
        let all = min(sendBufferOfAll, Int.max / 2)
        return switch priority.urgency {
        case 0: all + all / 8
        case ..<StreamPriority.standard.urgency: all + all / 16
        default: sendBufferOfAll
        }
    }

    /// Throws `invalidConfiguration` for what QUIC or memory doesn't allow.
    func validate() throws(QUICError) {
        func check(_ condition: Bool, _ message: String) throws(QUICError) {
            guard condition else {
                throw QUICError(.invalidConfiguration, message, advice: "Correct the transport settings.")
            }
        }
        try check((1200...65527).contains(maxUDPPayload), "maxUDPPayload must be from 1200 to 65527")
        try check(maxAckDelay < .milliseconds(1 << 14), "maxAckDelay must be below 16384 ms")
        try check(
            maxBidirectionalStreams <= Self.largestStreamLimit && maxUnidirectionalStreams <= Self.largestStreamLimit,
            "stream limits must be at most 2^20")
        try check(
            connectionWindow <= 1 << 40 && streamWindow <= 1 << 40, "windows must be at most 2^40 bytes")
        try check((1...1024).contains(ackThreshold), "ackThreshold must be from 1 to 1024")
        try check(packetsPerKey >= 16, "packetsPerKey must be at least 16")
        try check(maxDatagramFrameSize <= 65535, "maxDatagramFrameSize must be at most 65535")
        try check(streamSendBuffer >= 1024, "streamSendBuffer must be at least 1024 bytes")
        try check(backgroundSendBuffer >= 1024, "backgroundSendBuffer must be at least 1024 bytes")
        try check(maxIdleTimeout.nanoseconds > 0, "maxIdleTimeout must not be zero")
        try check(
            initialRTT.nanoseconds > 0 && initialRTT <= .seconds(3600),
            "initialRTT must not be zero, and at most an hour")
    }

    func shim(now: QUICInstant) -> llq_settings {
        var settings = llq_settings()
        settings.now = now.nanoseconds
        settings.initial_rtt = initialRTT.nanoseconds
        settings.handshake_timeout = handshakeTimeout.addable
        settings.max_idle_timeout = maxIdleTimeout.addable
        settings.max_ack_delay = maxAckDelay.nanoseconds
        settings.connection_window = connectionWindow
        settings.stream_window = streamWindow
        settings.max_streams_bidi = maxBidirectionalStreams
        settings.max_streams_uni = maxUnidirectionalStreams
        settings.max_datagram_frame_size = maxDatagramFrameSize
        settings.max_udp_payload = maxUDPPayload
        settings.congestion_control = congestionControl == .bbr ? Int32(LLQ_CC_BBR) : Int32(LLQ_CC_CUBIC)
        settings.discover_mtu = discoverPathMTU ? 1 : 0
        settings.ack_threshold = ackThreshold
        settings.forbid_migration = allowsActiveMigration ? 0 : 1
        settings.packet_protection = packetProtection.code
        return settings
    }
}
