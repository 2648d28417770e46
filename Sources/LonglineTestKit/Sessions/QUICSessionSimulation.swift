public import LonglineSession
public import LonglineWire
public import NIOCore
public import QUICEngine

/// One client's session and its server's over real QUIC, on a simulated network and in virtual time.
///
/// The server knows one user with an inbox and a room, whose logs are in memory; a test writes to them with
/// ``post(in:)``.
public final class QUICSessionSimulation: CustomReflectable {
    /// Nothing: a failed expectation would otherwise walk through both endpoints, which takes minutes.
    public var customMirror: Mirror { Mirror(self, children: [:]) }

    /// The network between the two, where a test puts a NAT or faults.
    public let network: SimulatedNetwork
    /// The client's session.
    public private(set) var client: ClientSession
    /// Every question for an answer after a silence that the client sent, in seconds of virtual time and milliseconds.
    public private(set) var questions: [(time: Double, silence: UInt64)] = []
    /// Sessions that the server granted.
    public private(set) var grants = 0
    /// Times that the client moved to another local port.
    public private(set) var migrations = 0
    /// Why the client's or the server's session ended.
    public private(set) var ends: [Close] = []
    /// What reached the client's app, with the time in seconds.
    public private(set) var deliveries: [(time: Double, channel: ChannelID, offset: Offset)] = []
    /// Bytes of large payloads' parts that reached a session.
    public private(set) var partBytes = (client: 0, server: 0)
    /// What the server was given to enter, whole, with the time in seconds. It acknowledges all of it and enters nothing.
    public private(set) var published: [(time: Double, channel: ChannelID, publish: Publish)] = []
    /// What the client learned last, for a device that keeps it.
    public private(set) var knowledge: HeartbeatKnowledge?

    /// The client's address. Its other ports follow one another.
    public static let clientAddress = QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50_000)
    /// Every address that the client may use.
    public static let clientAddresses = Set(
        (0..<64).map { QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 50_000 + UInt16($0)) })
    /// The server's address.
    public static let serverAddress = QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 4433)
    private static let epoch: Epoch = 9

    private let simulation: QUICSimulation
    private let endpoint: QUICEndpoint
    private let connection: QUICEngineConnection
    private var server: ServerSession
    private var serverConnection: QUICEngineConnection?
    private var random: SeededRandom
    private var lanes = (client: Lanes(), server: Lanes())
    private var logs: [ChannelID: [Entry]] = [:]
    private let device: DeviceID
    private let user: UserID
    /// The user's inbox.
    public let inbox: ChannelID
    /// A room that the user is in.
    public let room: ChannelID
    /// More rooms that the user is in.
    public var rooms: [ChannelID] = []
    /// Path changes since the client last received a packet.
    private var probes = 0
    private var packets = (client: UInt64(0), server: UInt64(0))

    private struct Lanes {
        var decoders: [QUICStreamID: FrameDecoder] = [:]
        var streams: [LaneID: QUICStreamID] = [:]
        var pending: [LaneID: ByteBuffer] = [:]
        /// Bytes that the streams took, and up to where a session waits for them to arrive.
        var written: [LaneID: Int] = [:]
        var awaited: [LaneID: (bytes: Int, question: UInt64)] = [:]
        /// Lanes whose session was told that they take no more.
        var full: Set<LaneID> = []
    }

    /// A client and a server that have not heard of each other.
    /// - Parameters:
    ///   - knowledge: what the client knows of the network.
    ///   - nat: stands before the client.
    public init(
        seed: UInt64, conditions: NetworkConditions = NetworkConditions(), heartbeat: HeartbeatPolicy,
        knowledge: HeartbeatKnowledge? = nil, nat: SimulatedNAT? = nil,
        server serverConfiguration: ServerSessionConfiguration = ServerSessionConfiguration()
    ) throws {
        network = SimulatedNetwork(seed: seed, conditions: conditions)
        network.nat = nat
        simulation = QUICSimulation(network: network)
        random = SeededRandom(seed: seed &+ 5)
        user = try UserID("alice")
        device = try DeviceID("phone")
        inbox = .user(user)
        room = .room(try RoomID("room"))
        let certificate = try DevelopmentCertificate.generate(
            names: ["server.test"], validDays: 20_000, now: 1_000_000_000, keyKind: .ed25519)
        var transport = TransportSettings()
        transport.maxIdleTimeout = .seconds(660)
        var serving = ServerConfiguration(
            tls: try TLSServerContext(credentials: certificate.credentials, applicationProtocols: ["longline/1"]))
        serving.transport = transport
        var configuration = EndpointConfiguration()
        configuration.server = serving
        configuration.staticKey = [UInt8](repeating: 7, count: 32)
        let serverEndpoint = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: seed &+ 1))
        endpoint = try QUICEndpoint(configuration: EndpointConfiguration(), random: SeededRandom(seed: seed &+ 2))
        let serverHost = simulation.add(serverEndpoint, at: [Self.serverAddress])
        let clientHost = simulation.add(endpoint, at: Self.clientAddresses)
        var connecting = ClientConfiguration(
            serverName: "server.test", applicationProtocols: ["longline/1"],
            verification: .certificateAuthority(pem: certificate.certificatePEM))
        connecting.transport = transport
        connection = try endpoint.connect(
            to: Self.serverAddress, from: Self.clientAddress, configuration: connecting, now: network.now)
        let now = NIODeadline.uptimeNanoseconds(network.now.nanoseconds)
        var clientConfiguration = ClientSessionConfiguration()
        clientConfiguration.heartbeat = heartbeat
        client = ClientSession(
            configuration: clientConfiguration, producer: ProducerID(high: 1, low: seed), cursors: [:],
            cursorVersion: 0)
        server = ServerSession(configuration: serverConfiguration, observedAddress: "", now: now)
        if let knowledge { client.networkChanged(knowledge, now: now) }
        clientHost.onEvent = { [unowned self] in handleClient($1) }
        serverHost.onEvent = { [unowned self] in handleServer($1, on: $0) }
    }

    /// The time in seconds.
    public var seconds: Double { Double(network.now.nanoseconds) / 1e9 }

    private var now: NIODeadline { .uptimeNanoseconds(network.now.nanoseconds) }

    /// Lets time pass.
    /// - Returns: whether the condition came to hold.
    @discardableResult
    public func run(for limit: TimeAmount, until condition: () -> Bool = { false }) -> Bool {
        let end = now + limit
        pump()
        while !condition() {
            guard now < end else { return false }
            let deadline = min(end, [client.nextDeadline, server.nextDeadline].compactMap { $0 }.min() ?? end)
            let left = UInt64(max(0, (deadline - now).nanoseconds))
            simulation.run(for: .nanoseconds(left)) { self.countPackets() }
            if let due = client.nextDeadline, now >= due { client.deadlineReached(now: now, random: &random) }
            if let due = server.nextDeadline, now >= due { server.deadlineReached(now: now) }
            pump()
        }
        return true
    }

    /// Writes entries of so many bytes into a channel's log.
    public func post(in channel: ChannelID, bytes: Int = 1, count: Int = 1) {
        for _ in 0..<count {
            let previous = logs[channel]?.last?.offset ?? 0
            logs[channel, default: []].append(
                Entry(
                    offset: previous + 1, previous: previous, kind: .message, sender: user, device: device,
                    producer: ProducerID(high: 7, low: 7), publishID: previous + 1, recipient: nil, origin: nil,
                    time: 0, expiry: 0, payload: ByteBuffer(repeating: 120, count: bytes)))
        }
        let head = logs[channel]?.last?.offset ?? 0
        server.logAdvanced(channel, head: Position(epoch: Self.epoch, offset: head), now: now)
        pump()
    }

    /// How urgent a channel is to the client.
    public func setUrgency(_ urgency: Urgency, of channel: ChannelID) {
        _ = client.setUrgency(urgency, of: channel, now: now)
        pump()
    }

    /// Publishes a message of so many bytes.
    public func publish(_ id: PublishID, after: PublishID = 0, in channel: ChannelID, bytes: Int) {
        let publish = Publish(
            id: id, tag: id, after: after, recipient: nil, timeToLive: 0,
            payload: ByteBuffer(repeating: 121, count: bytes))
        _ = client.enqueue(OutboxRow(channel: channel, publish: publish, queuedAt: now), now: now)
        pump()
    }

    /// The app's mode.
    public func setMode(_ mode: SessionMode) {
        client.setMode(mode, now: now)
        pump()
    }

    // MARK: Packets

    /// Tells the sessions that packets came.
    /// - Returns: whether any did.
    private func countPackets() -> Bool {
        var came = false
        if connection.packetsReceived != packets.client {
            packets.client = connection.packetsReceived
            probes = 0
            client.packetReceived(now: now)
            came = true
        }
        if let count = serverConnection?.packetsReceived, count != packets.server {
            packets.server = count
            server.packetReceived(now: now)
            came = true
        }
        return came
    }

    private func handleClient(_ event: QUICConnectionEvent) {
        switch event {
        case .handshakeConfirmed:
            guard let stream = try? connection.openStream(bidirectional: true) else { return }
            lanes.client.streams[.control] = stream
            client.linkOpened(
                credential: .token("t"), connectNumber: 1, supportsPathChange: true, outbox: [], now: now)
        case .streamReadable(let stream):
            for frame in read(stream, of: connection, decoders: &lanes.client.decoders) {
                if case .part(let part) = frame { partBytes.client += part.bytes.readableBytes }
                client.received(frame, lane: Self.lane(stream), now: now)
            }
        case .streamWritable(let stream):
            if let lane = lanes.client.streams.first(where: { $0.value == stream })?.key {
                Self.flush(lane, of: connection, &lanes.client)
            }
        case .pathChanged: client.pathChanged(now: now)
        case .closed: client.linkClosed(now: now)
        default: break
        }
        pump()
    }

    private func handleServer(_ event: QUICConnectionEvent, on connection: QUICEngineConnection) {
        switch event {
        case .accepted: serverConnection = connection
        case .handshakeCompleted:
            server.observedAddressChanged("\(connection.path.remote)")
            server.handshakeCompleted(now: now)
        case .streamOpened(let stream): if stream.isBidirectional { lanes.server.streams[.control] = stream }
        case .streamReadable(let stream):
            for frame in read(stream, of: connection, decoders: &lanes.server.decoders) {
                if case .part(let part) = frame { partBytes.server += part.bytes.readableBytes }
                server.received(frame, lane: Self.lane(stream), early: false, now: now)
            }
        case .streamWritable(let stream):
            if let lane = lanes.server.streams.first(where: { $0.value == stream })?.key {
                Self.flush(lane, of: connection, &lanes.server)
            }
        case .pathChanged(let path): server.observedAddressChanged("\(path.remote)")
        case .closed: server.linkClosed()
        default: break
        }
        pump()
    }

    private static func lane(_ stream: QUICStreamID) -> LaneID {
        stream.isBidirectional ? .control : LaneID(rawValue: stream.ordinal + 1)
    }

    private func read(
        _ stream: QUICStreamID, of connection: QUICEngineConnection, decoders: inout [QUICStreamID: FrameDecoder]
    ) -> [Frame] {
        var decoder = decoders.removeValue(forKey: stream) ?? FrameDecoder()
        defer { decoders[stream] = decoder }
        var bytes = [UInt8](repeating: 0, count: 4096)
        var frames: [Frame] = []
        do {
            while true {
                let result = try bytes.withUnsafeMutableBytes { try connection.read(stream, into: $0) }
                decoder.append(ByteBuffer(bytes: bytes[0..<result.count]))
                while let frame = try decoder.next() { frames.append(frame) }
                if result.count == 0 || result.finished { return frames }
            }
        } catch {
            ends.append(Close(code: .internalError, reason: "\(error)"))
            return frames
        }
    }

    private func write(_ frame: Frame, lane: LaneID, of connection: QUICEngineConnection, _ lanes: inout Lanes) {
        guard lanes.streams[lane] != nil,
            (try? FrameEncoder.encode(frame, into: &lanes.pending[lane, default: ByteBuffer()])) != nil
        else { return ends.append(Close(code: .internalError, reason: "\(frame.name) could not be written")) }
        Self.flush(lane, of: connection, &lanes)
    }

    /// Hands a lane's bytes to its stream, as many as it takes.
    private static func flush(_ lane: LaneID, of connection: QUICEngineConnection, _ lanes: inout Lanes) {
        guard let stream = lanes.streams[lane], let waiting = lanes.pending[lane], waiting.readableBytes > 0 else {
            return
        }
        let taken = try? waiting.withUnsafeReadableBytes { try connection.write($0, to: stream, finish: false) }
        lanes.written[lane, default: 0] += taken ?? 0
        lanes.pending[lane]?.moveReaderIndex(forwardBy: taken ?? waiting.readableBytes)
        if lanes.pending[lane]?.readableBytes == 0 { lanes.pending[lane] = nil }
    }

    /// Tells a session of its lanes that are full, and of those that are not any more.
    private static func changes(_ lanes: inout Lanes) -> [(LaneID, Bool)] {
        let full = Set(lanes.pending.keys)
        defer { lanes.full = full }
        return full.subtracting(lanes.full).map { ($0, false) } + lanes.full.subtracting(full).map { ($0, true) }
    }

    /// Lanes of which the client has what was asked about.
    private func delivered() -> [(lane: LaneID, question: UInt64)] {
        let there = lanes.server.awaited.filter { lane, awaited in
            guard let connection = serverConnection, let stream = lanes.server.streams[lane] else { return true }
            return lanes.server.written[lane, default: 0] - connection.unacknowledgedBytes(stream) >= awaited.bytes
        }
        for lane in there.keys { lanes.server.awaited[lane] = nil }
        return there.map { (lane: $0.key, question: $0.value.question) }.sorted { $0.lane < $1.lane }
    }

    private static func priority(_ urgency: Urgency) -> StreamPriority {
        StreamPriority(urgency: urgency == .control ? 1 : urgency == .chat ? 3 : 5)
    }

    // MARK: What the sessions want

    private func pump() {
        var isBusy = true
        while isBusy {
            isBusy = false
            while let action = client.nextAction() {
                isBusy = true
                perform(action)
            }
            while let action = server.nextAction() {
                isBusy = true
                perform(action)
            }
            for (lane, isWritable) in Self.changes(&lanes.client).sorted(by: { $0.0 < $1.0 }) {
                isBusy = true
                client.laneWritable(lane, isWritable, now: now)
            }
            for (lane, isWritable) in Self.changes(&lanes.server).sorted(by: { $0.0 < $1.0 }) {
                isBusy = true
                server.laneWritable(lane, isWritable, now: now)
            }
            for (lane, question) in delivered() {
                isBusy = true
                server.laneDelivered(lane, question: question, now: now)
            }
        }
    }

    private func perform(_ action: ClientAction) {
        switch action {
        case .openLane(let lane): lanes.client.streams[lane] = try? connection.openStream(bidirectional: false)
        case .awaitRoom(let lane): lanes.client.full.insert(lane)
        case .prioritize(let lane, let urgency):
            if let stream = lanes.client.streams[lane] { connection.setPriority(Self.priority(urgency), of: stream) }
        case .send(let frame, let lane):
            if case .ping(let ping) = frame, ping.answerAfter > 0 { questions.append((seconds, ping.answerAfter)) }
            write(frame, lane: lane, of: connection, &lanes.client)
        case .finishLane(let lane): finish(lane, of: connection, &lanes.client)
        case .deliver(let channel, let epoch, let deliver):
            deliveries.append((seconds, channel, deliver.entry.offset))
            client.confirm(
                channel: channel, position: Position(epoch: epoch, offset: deliver.entry.offset), now: now)
        case .heartbeatLearned(let learned): knowledge = learned
        case .probePath:
            // As a client does: one other path since the last packet, then the link is given up.
            probes += 1
            guard probes == 1 else { return client.close(Close(code: .idle, reason: "no path answers"), now: now) }
            migrations += 1
            var local = Self.clientAddress
            local.port += UInt16(migrations % Self.clientAddresses.count)
            do { try connection.migrate(to: local, now: network.now) } catch {
                ends.append(Close(code: .internalError, reason: "no path change: \(error)"))
            }
        case .end(let end): ends.append(end.close)
        default: break
        }
    }

    private func perform(_ action: ServerAction) {
        guard let connection = serverConnection else { return }
        switch action {
        case .authenticate:
            grants += 1
            let identity = SessionIdentity(
                tenant: tenant, user: user, device: device, loginEpoch: 1, tokenID: "t", expiry: 1 << 60,
                mayPublish: true, mayReceive: true, mayJoin: true)
            let channels = ([inbox, room] + rooms).map {
                SessionChannel(
                    channel: $0, head: Position(epoch: Self.epoch, offset: logs[$0]?.last?.offset ?? 0), first: 0,
                    after: 0, upTo: nil, cursor: nil, sent: 0)
            }
            server.authenticated(
                SessionGrant(
                    identity: identity, session: 1, resumed: false, cursorVersion: 0, channels: channels, ticket: nil),
                time: 0, now: now)
        case .read(let channel, let after, _, let bytes):
            var room = bytes
            let entries = (logs[channel] ?? []).drop { $0.offset <= after }.prefix { entry in
                defer { room -= entry.payload.readableBytes }
                return room > 0
            }.map { $0.head(FrameLimits.maximumPayload) }
            server.pageRead(
                channel,
                page: SessionPage(
                    epoch: Self.epoch, items: entries.map { .entry($0) }, head: logs[channel]?.last?.offset ?? 0,
                    first: 0), now: now)
        case .readPayload(let read):
            let bytes = logs[read.channel]?.first { $0.offset == read.offset }.flatMap { entry in
                let count = min(read.maximumBytes, entry.payload.readableBytes - Int(read.from))
                return entry.payload.getSlice(at: entry.payload.readerIndex + Int(read.from), length: count)
            }
            server.payloadRead(read, bytes: bytes, now: now)
        case .append(let channel, _, let publish):
            published.append((seconds, channel, publish))
            let position = Position(epoch: Self.epoch, offset: UInt64(published.count))
            server.appended(
                channel: channel, id: publish.id,
                outcome: .published(Published(id: publish.id, position: position, time: 0)), now: now)
        case .openLane(let lane): lanes.server.streams[lane] = try? connection.openStream(bidirectional: false)
        case .prioritize(let lane, let urgency):
            if let stream = lanes.server.streams[lane] { connection.setPriority(Self.priority(urgency), of: stream) }
        case .awaitDelivery(let lane, let question):
            let sent = lanes.server.written[lane, default: 0] + (lanes.server.pending[lane]?.readableBytes ?? 0)
            lanes.server.awaited[lane] = (bytes: sent, question: question)
        case .send(let frame, let lane): write(frame, lane: lane, of: connection, &lanes.server)
        case .finishLane(let lane): finish(lane, of: connection, &lanes.server)
        case .close(let close): ends.append(close)
        default: break
        }
    }

    private var tenant: TenantID {
        do { return try TenantID("tenant") } catch { preconditionFailure("a name by the rule") }
    }

    private func finish(_ lane: LaneID, of connection: QUICEngineConnection, _ lanes: inout Lanes) {
        guard let stream = lanes.streams[lane] else { return }
        _ = try? connection.write(UnsafeRawBufferPointer(start: nil, count: 0), to: stream, finish: true)
    }
}
