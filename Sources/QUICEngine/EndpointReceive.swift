import CQUICShim
import Glibc

/// What the endpoint does with a datagram: route it, or accept, refuse or ignore who sent it.
extension QUICEndpoint {
    /// Takes one UDP payload. Bytes are copied as needed; nothing is kept of the buffer.
    public func receive(
        _ datagram: UnsafeRawBufferPointer, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {
        counters.datagramsReceived += 1
        counters.bytesReceived += UInt64(datagram.count)
        receiveRun(datagram, segmentSize: max(datagram.count, 1), path: path, ecn: ecn, now: now)
    }

    /// Takes UDP payloads that lie one behind the other, as the kernel joins them (GRO): all `segmentSize` bytes long but
    /// the last, which may be shorter. Cheaper than one by one.
    public func receive(
        _ datagrams: UnsafeRawBufferPointer, segmentSize: Int, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {
        precondition(segmentSize > 0, "a segment has a length")
        counters.datagramsReceived += UInt64((datagrams.count + segmentSize - 1) / segmentSize)
        counters.bytesReceived += UInt64(datagrams.count)
        var offset = 0
        while offset < datagrams.count {
            let end = endOfRun(datagrams, from: offset, segmentSize: segmentSize)
            receiveRun(
                UnsafeRawBufferPointer(rebasing: datagrams[offset..<end]), segmentSize: segmentSize, path: path,
                ecn: ecn, now: now)
            offset = end
        }
    }

    /// Where the datagrams end that begin with one short header and connection ID. A long header stands alone.
    private func endOfRun(_ datagrams: UnsafeRawBufferPointer, from start: Int, segmentSize: Int) -> Int {
        let next = min(start + segmentSize, datagrams.count)
        let idLength = layout.length
        guard let base = datagrams.baseAddress, datagrams[start] & 0x80 == 0, next - start > idLength else {
            return next
        }
        var end = next
        while end < datagrams.count, datagrams[end] & 0x80 == 0, datagrams.count - end > idLength,
            memcmp(base + start + 1, base + end + 1, idLength) == 0
        {
            end = min(end + segmentSize, datagrams.count)
        }
        return end
    }

    private func receiveRun(
        _ datagrams: UnsafeRawBufferPointer, segmentSize: Int, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {
        guard let base = datagrams.baseAddress?.assumingMemoryBound(to: UInt8.self), !datagrams.isEmpty else {
            counters.garbageDatagrams += 1
            return
        }
        var header = llq_header()
        llq_decode(&header, base, min(segmentSize, datagrams.count), layout.length)
        if Int(header.kind) != Int(LLQ_PACKET_INVALID), Int(header.kind) != Int(LLQ_PACKET_OVERLONG_IDS),
            let connection = routes[ConnectionID(header.dcid)]?.connection
        {
            connection.receive(datagrams, segmentSize: segmentSize, path: path, ecn: ecn, now: now)
            return
        }
        var offset = 0
        while true {
            let end = min(offset + segmentSize, datagrams.count)
            let datagram = UnsafeRawBufferPointer(rebasing: datagrams[offset..<end])
            receiveUnrouted(datagram, header: header, path: path, ecn: ecn, now: now)
            offset = end
            guard offset < datagrams.count else { return }
            llq_decode(&header, base + offset, min(segmentSize, datagrams.count - offset), layout.length)
        }
    }

    /// A datagram that no living connection expects, or that one before it in its run made a connection for.
    private func receiveUnrouted(
        _ datagram: UnsafeRawBufferPointer, header: llq_header, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {
        guard Int(header.kind) != Int(LLQ_PACKET_INVALID) else {
            counters.garbageDatagrams += 1
            return
        }
        guard Int(header.kind) != Int(LLQ_PACKET_OVERLONG_IDS) else {
            return answerUnsupportedVersion(header, size: datagram.count, path: path, now: now)
        }
        let id = ConnectionID(header.dcid)
        if let route = routes[id] {
            if let connection = route.connection {
                connection.receive(datagram, path: path, ecn: ecn, now: now)
            } else if let close = route.close, let bytes = close.answer(to: datagram.count) {
                sendLoose(bytes, path: close.packet.path, ecn: close.packet.ecn)
            }
            return
        }
        switch Int(header.kind) {
        case Int(LLQ_PACKET_SHORT): receiveUnknownShort(datagram, path: path, ecn: ecn, id: id, now: now)
        case Int(LLQ_PACKET_UNSUPPORTED_VERSION):
            answerUnsupportedVersion(header, size: datagram.count, path: path, now: now)
        default:
            // ngtcp2 knows versions that aren't spoken here, drafts among them.
            guard let server else {
                counters.garbageDatagrams += 1
                return
            }
            if header.version != 0, !server.versions.contains(header.version) {
                return answerUnsupportedVersion(header, size: datagram.count, path: path, now: now)
            }
            receiveUnknownLong(datagram, server: server, path: path, ecn: ecn, now: now)
        }
    }

    private func answerUnsupportedVersion(_ header: llq_header, size: Int, path: QUICPath, now: QUICInstant) {
        // Only as a server, and for datagrams of full size, so that the answer is smaller (RFC 9000 sections 6.1 and 14.1).
        guard let server, size >= Int(LLQ_MIN_INITIAL_SIZE), !server.versions.contains(header.version),
            refusalLimit.allows(now: now)
        else {
            counters.garbageDatagrams += 1
            return
        }
        // The IDs come back as they are: up to 255 bytes each, which no version of ours has.
        var packet = [UInt8](repeating: 0, count: size)
        var header = header
        // One reserved version keeps clients honest (RFC 9000 section 15), but never the one that the client tried: it
        // would have to ignore the packet (section 6.2).
        let versions = [header.version == 0x1a2a_3a4a ? 0x5a6a_7a8a : 0x1a2a_3a4a] + server.versions
        let length = llq_write_version_negotiation(
            &packet, packet.count, random.bytes(1)[0], &header, versions, versions.count)
        guard length > 0 else { return }
        counters.versionNegotiationsSent += 1
        sendLoose(Array(packet.prefix(length)), path: path)
    }

    /// A stateless reset of a peer looks like this, and so does a packet of a connection we have forgotten.
    private func receiveUnknownShort(
        _ datagram: UnsafeRawBufferPointer, path: QUICPath, ecn: ECNCodepoint, id: ConnectionID, now: QUICInstant
    ) {
        let tokenLength = Int(LLQ_RESET_TOKEN_LENGTH)
        if datagram.count >= 21, let owner = resetTokenOwners[Array(datagram.suffix(tokenLength))] {
            owner.receive(datagram, path: path, ecn: ecn, now: now)
            return
        }
        counters.unknownConnectionIDs += 1
        // Shorter than what came in, so that two endpoints can't answer each other for ever (RFC 9000 section 10.3.3).
        let smallest = 5 + tokenLength
        guard server != nil, datagram.count > smallest, resetLimit.allows(now: now) else { return }
        let token = resetTokens.token(for: id)
        let filler = random.bytes(min(datagram.count - 1, 43) - tokenLength)
        var packet = [UInt8](repeating: 0, count: filler.count + tokenLength)
        let length = llq_write_stateless_reset(&packet, packet.count, token, filler, filler.count)
        guard length > 0 else { return }
        counters.statelessResetsSent += 1
        sendLoose(Array(packet.prefix(length)), path: path)
    }

    private func receiveUnknownLong(
        _ datagram: UnsafeRawBufferPointer, server: ServerRole, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {
        var initial = llq_initial()
        guard let base = datagram.baseAddress?.assumingMemoryBound(to: UInt8.self),
            datagram.count >= Int(LLQ_MIN_INITIAL_SIZE), llq_accept(&initial, base, datagram.count) == 0
        else {
            counters.garbageDatagrams += 1
            return
        }
        guard !isFull else {
            counters.connectionsRefusedForMemory += 1
            refuse(initial, code: 0x02, path: path, now: now)
            return
        }
        guard acceptsConnections, connections.count < configuration.maxConnections,
            handshakesInProgress < server.configuration.maxHandshakes,
            handshakesByAddress[path.remote.hostKey, default: 0]
                < server.configuration.maxValidatedHandshakesPerAddress,
            connectionsByAddress[path.remote.hostKey, default: 0] < server.configuration.maxConnectionsPerAddress
        else {
            refuse(initial, code: 0x02, path: path, now: now)
            return
        }
        switch checkToken(initial, path: path, now: now) {
        case .invalid:
            refuse(initial, code: 0x0b, path: path, now: now)
        case .none where mustRetry(server, path: path, now: now):
            retry(initial, path: path, now: now)
        case let address:
            guard let connection = accept(initial, address: address, server: server, path: path, now: now) else {
                return refuse(initial, code: 0x01, path: path, now: now)
            }
            let result = connection.receive(datagram, path: path, ecn: ecn, now: now)
            // The ClientHello doesn't begin with this datagram: only for a client that has shown its address is the rest kept.
            if Int(result) == Int(LLQ_RETRY) { retry(initial, path: path, now: now) }
        }
    }

    private enum AddressProof {
        case none
        case invalid
        case retry(original: ConnectionID)
        case earlier
    }

    private func checkToken(_ initial: llq_initial, path: QUICPath, now: QUICInstant) -> AddressProof {
        var remote = path.remote.shim
        switch Int(llq_token_kind(initial.token, initial.token_length)) {
        case Int(LLQ_TOKEN_RETRY):
            var original = llq_cid()
            var dcid = initial.dcid
            let result = llq_verify_retry_token(
                &original, initial.token, initial.token_length, staticKey, staticKey.count, initial.version, &remote,
                &dcid, 10_000_000_000, wallClock(now))
            return result == 0 ? .retry(original: ConnectionID(original)) : .invalid
        case Int(LLQ_TOKEN_REGULAR):
            let lifetime = server?.configuration.addressTokenLifetime ?? .seconds(0)
            let result = llq_verify_regular_token(
                initial.token, initial.token_length, staticKey, staticKey.count, initial.version, &remote,
                lifetime.addable, llq_wall_clock() &* 1_000_000_000)
            // A token that doesn't hold is as good as none: the client may have moved, or it is of another version. So is one that
            // was used before: who has seen it could send in its client's name (RFC 9000 section 8.1.4).
            guard result == 0, let token = initial.token else { return .none }
            let isNew = usedTokens.insert(UnsafeRawBufferPointer(start: token, count: initial.token_length))
            return isNew ? .earlier : .none
        default:
            return .none
        }
    }

    /// Nanoseconds since 1970: the key outlives the clock of our calls, which begins anew when the machine does, and is shared by
    /// machines. It advances as that clock does.
    private func wallClock(_ now: QUICInstant) -> UInt64 {
        let offset = wallClockOffset ?? (llq_wall_clock() &* 1_000_000_000 &- now.nanoseconds)
        wallClockOffset = offset
        return now.nanoseconds &+ offset
    }

    /// Anybody can end a handshake that he has begun in another's name, since the keys of Initial packets are no secret, or begin one
    /// that fails at once. What that costs the server is spent by then, so those that ended so count for a while.
    private func mustRetry(_ server: ServerRole, path: QUICPath, now: QUICInstant) -> Bool {
        guard let threshold = server.configuration.retryThreshold else { return false }
        return handshakesInProgress + unfinishedHandshakes.count(now: now) >= threshold
            || handshakesByAddress[path.remote.hostKey, default: 0] >= server.configuration.maxHandshakesPerAddress
    }

    private func refuse(_ initial: llq_initial, code: UInt64, path: QUICPath, now: QUICInstant) {
        counters.connectionsRefused += 1
        guard refusalLimit.allows(now: now) else { return }
        var packet = [UInt8](repeating: 0, count: 256)
        var destination = initial.scid
        var source = initial.dcid
        let length = llq_write_refusal(&packet, packet.count, initial.version, &destination, &source, code)
        if length > 0 { sendLoose(Array(packet.prefix(length)), path: path) }
    }

    private func retry(_ initial: llq_initial, path: QUICPath, now: QUICInstant) {
        let id = layout.make(random: random)
        var source = id.shim
        var original = initial.dcid
        var destination = initial.scid
        var remote = path.remote.shim
        var token = [UInt8](repeating: 0, count: Int(LLQ_MAX_TOKEN_LENGTH))
        let tokenLength = llq_retry_token(
            &token, staticKey, staticKey.count, initial.version, &remote, &source, &original, wallClock(now))
        guard tokenLength > 0 else { return }
        var packet = [UInt8](repeating: 0, count: 512)
        let length = llq_write_retry(
            &packet, packet.count, initial.version, &destination, &source, &original, token, tokenLength)
        guard length > 0 else { return }
        counters.retriesSent += 1
        sendLoose(Array(packet.prefix(length)), path: path)
    }

    /// - Returns: nil: the TLS library or ngtcp2 doesn't take it.
    private func accept(
        _ initial: llq_initial, address: AddressProof, server: ServerRole, path: QUICPath, now: QUICInstant
    ) -> QUICEngineConnection? {
        let id = layout.make(random: random)
        let certificates = server.configuration.tls.current
        let first = ConnectionID(initial.dcid)
        var original = first
        if case .retry(let beforeRetry) = address { original = beforeRetry }
        let qlog = server.configuration.qlog?(QLogSubject(originalDestinationID: original.bytes, isServer: true))
        let context = makeContext(
            server: server, keyLog: server.configuration.tls.keyLog, certificates: certificates, qlog: qlog)
        let preferred = server.configuration.preferredAddresses.isEmpty ? nil : layout.make(random: random)
        guard
            let shim = makeServerShim(
                initial, id: id, preferred: preferred, address: address, server: server,
                credentials: certificates.standard, context: context, path: path, now: now)
        else { return nil }
        let connection = add(
            client: nil, settings: server.configuration.transport, context: context, tlsObjects: server.tlsObjects,
            original: original, path: path, now: now)
        connection.shim = shim
        connection.route.ids.reserveCapacity(Self.expectedIDs)
        addRoute(id, to: connection)
        if let preferred { addRoute(preferred, to: connection) }
        // The client uses its own choice until it has read ours.
        connection.originalID = first
        routes[first] = connection.route
        connection.countsAsHandshake = true
        connection.handshakeAddressKey = path.remote.hostKey
        joinSendMemory(connection)
        handshakesInProgress += 1
        handshakesByAddress[path.remote.hostKey, default: 0] += 1
        counters.connectionsAccepted += 1
        connection.emit(.accepted)
        return connection
    }

    private func makeServerShim(
        _ initial: llq_initial, id: ConnectionID, preferred: ConnectionID?, address: AddressProof, server: ServerRole,
        credentials: TLSCredentials, context: ConnectionContext, path: QUICPath, now: QUICInstant
    ) -> OpaquePointer? {
        var owner = context.owner
        var clientID = initial.scid
        var ownID = id.shim
        var original = initial.dcid
        var retryID = initial.dcid
        var isRetry = false
        var settings = server.configuration.transport.shim(now: now)
        switch address {
        case .retry(let first):
            original = first.shim
            isRetry = true
            settings.token = initial.token
            settings.token_length = initial.token_length
        case .earlier:
            settings.token = initial.token
            settings.token_length = initial.token_length
        case .none, .invalid:
            break
        }
        let token = resetTokens.token(for: id)
        var tls = server.tls
        tls.credentials = UnsafeMutableRawPointer(credentials.pointer)
        var preferredAddress = llq_preferred_address()
        if let preferred { fill(&preferredAddress, server.configuration.preferredAddresses, id: preferred) }
        var path = path.shim
        var error: Int32 = 0
        return server.alpn.withUnsafeBufferPointer { names in
            tls.alpn = names.baseAddress
            tls.alpn_length = names.count
            return withUnsafePointer(to: &retryID) { retryID in
                server.versions.withUnsafeBufferPointer { versions in
                    withUnsafePointer(to: &preferredAddress) { preferredAddress in
                        settings.versions = versions.baseAddress
                        settings.version_count = versions.count
                        settings.preferred_address = preferred == nil ? nil : preferredAddress
                        return llq_conn_server_new(
                            &owner, &clientID, &ownID, &original, isRetry ? retryID : nil, isRetry ? 1 : 0,
                            initial.version, &path, token, &settings, &tls, &error)
                    }
                }
            }
        }
    }

    private func fill(
        _ target: inout llq_preferred_address, _ addresses: [QUICSocketAddress], id: ConnectionID
    ) {
        for address in addresses {
            if address.isIPv6 {
                target.ipv6 = address.shim
                target.has_ipv6 = 1
            } else {
                target.ipv4 = address.shim
                target.has_ipv4 = 1
            }
        }
        target.cid = id.shim
        let token = resetTokens.token(for: id)
        withUnsafeMutableBytes(of: &target.reset_token) { $0.copyBytes(from: token) }
    }
}
