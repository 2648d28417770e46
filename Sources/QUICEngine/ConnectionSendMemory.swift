/// A host that reads nothing makes a server keep what it wrote for it, on each of its connections: a hundred of them, each with all
/// that ``TransportSettings/connectionSendBuffer`` allows, would take what those of an endpoint may hold. Here nobody has to go for it, as
/// where data came out of order: a writer waits.
extension QUICEngineConnection {
    /// Bytes that each connection may have written, whatever the others of its address have: who is behind the same NAT as such a
    /// host goes on, and its own acknowledgements wake its writers.
    static let leastSendMemory = 16 << 10

    /// Bytes that a stream of this connection may take of its address's share now. A connection may have as many as are free of the
    /// share, so that each of those that take all they can is left less than the one before, and the next one something.
    func addressRoom(of stream: EngineStream) -> Int {
        guard let memory = addressSendMemory else { return .max }
        return max(sharedRoom(of: memory), firstRoom(of: stream))
    }

    /// Whether that is enough to wake a writer that waits.
    func hasAddressRoom(for stream: EngineStream) -> Bool {
        guard let memory = addressSendMemory else { return true }
        return hasSharedRoom(of: memory) || firstRoom(of: stream) >= FirstBytes.enough
    }

    /// Bytes of datagrams that each connection may have waiting in any case, in each direction.
    static let leastDatagramMemory = 4 << 10

    /// Whether a datagram may wait besides others: as with streams, where their address has no more of its share free.
    /// - Parameter freed: bytes of what waits and doesn't any more then.
    func hasRoom(forDatagramOf count: Int, freeing freed: Int) -> Bool {
        guard let memory = addressSendMemory else { return true }
        let own = countedDatagramBytes - freed
        return count <= max(Self.leastDatagramMemory - own, (memory.share - (memory.total - freed) - own) / 2)
    }

    /// After each change of what waits.
    func countQueuedDatagrams() {
        let difference = datagramsToSend.byteCount - countedDatagramBytes
        guard difference != 0 else { return }
        countedDatagramBytes += difference
        context.storage.memory.held += difference
        guard let memory = addressSendMemory else { return }
        memory.total += difference
        // Datagrams leave while packets are written: no writer is woken in the middle of that.
        if difference < 0, !memory.waiters.isEmpty { endpoint.offerLater(memory, now: now) }
    }

    /// None leaves any more.
    func dropQueuedDatagrams() {
        datagramsToSend = DatagramQueue()
        countQueuedDatagrams()
    }

    private func sharedRoom(of memory: AddressSendMemory) -> Int {
        max(Self.leastSendMemory - sendBufferBytes, (memory.share - memory.total - sendBufferBytes) / 2)
    }

    /// The fewer bytes a connection has, the sooner it does.
    fileprivate func hasSharedRoom(of memory: AddressSendMemory) -> Bool {
        sharedRoom(of: memory) >= Self.leastSendMemory / 2
    }

    /// Whether half is free of what it may have however much the others of its address have.
    private var hasOwnRoom: Bool { sendBufferBytes <= Self.leastSendMemory / 2 }

    private func firstRoom(of stream: EngineStream) -> Int {
        min(FirstBytes.ofStream - stream.sendBuffer.count, firstBytes.room(for: stream.countedKind))
    }

    /// A stream's send buffer has so many bytes more than before, or fewer.
    func countSendBuffer(of stream: EngineStream, changedBy change: Int) {
        sendBufferBytes += change
        context.storage.memory.held += change
        if stream.isBackground { backgroundBytes += change }
        if addressSendMemory != nil { countFirstBytes(of: stream) }
    }

    private func countFirstBytes(of stream: EngineStream) {
        let count = min(stream.sendBuffer.count, FirstBytes.ofStream)
        guard count != stream.firstBytes else { return }
        let kind = stream.countedKind
        firstBytes[kind].bytes += count - stream.firstBytes
        stream.firstBytes = count
        stream.firstBytesKind = kind
    }

    /// A writer waits for room: its own acknowledgements may bring that, or those of another connection.
    func waitForAddressRoom(_ stream: EngineStream) {
        guard let memory = addressSendMemory else { return }
        memory.waiters.set(self)
        let kind = stream.countedKind
        if firstBytes.room(for: kind) < FirstBytes.enough { firstBytes[kind].isAwaited = true }
    }

    /// After something that may have left room to writers, of this connection or of others.
    func offerAddressRoom() {
        guard let memory = addressSendMemory, !memory.waiters.isEmpty else { return }
        if sendWaiterIndex != nil {
            if hasOwnRoom {
                // That is nobody else's: it waits for no turn.
                memory.waiters.remove(self)
                reportWritableForAddress()
            } else {
                memory.waiters.set(self)
                if firstBytes.becameFree() { offerFirstBytes(besides: memory) }
            }
        }
        endpoint.offer(memory, now: now)
    }

    /// Wakes as many writers as find enough of the first bytes that are free: a hundred would else wake for each kilobyte, all but one or
    /// two of them in vain. The others are told a little later, of what is left then.
    private func offerFirstBytes(besides memory: AddressSendMemory) {
        var promised = FirstBytes()
        var someAreLeft = false
        forEachWaiting { stream in
            let kind = stream.countedKind
            let room = firstBytes.room(for: kind) - promised[kind].bytes
            guard room >= FirstBytes.enough || hasSharedRoom(of: memory) else {
                firstBytes[kind].isAwaited = true
                if promised[kind].bytes > 0 { someAreLeft = true }
                return
            }
            reportWritable(stream)
            guard !stream.owesWritable else { return }
            promised[kind].bytes += max(0, min(FirstBytes.ofStream - stream.sendBuffer.count, room))
        }
        if someAreLeft { endpoint.serveLater(self) }
    }
}

extension EngineStream {
    /// The kind of first bytes that it would take.
    var presentKind: FirstBytes.Kind { isUrgent ? (priority.urgency == 0 ? .mostUrgent : .urgent) : .ordinary }

    /// That of those it has: a peer that may say how urgent its streams are gets no more by saying it anew.
    fileprivate var countedKind: FirstBytes.Kind { firstBytes > 0 ? firstBytesKind : presentKind }
}

/// The first bytes in the send buffers of a connection's streams. They have room of their own, however much others have written: what
/// one stream's peer doesn't read holds up no other, and what is urgent doesn't wait for what is less so. All together they are
/// bounded, as a host may have many streams on many connections.
struct FirstBytes {
    enum Kind: CaseIterable { case ordinary, urgent, mostUrgent }

    struct Count {
        var bytes = 0
        /// A writer waits for others to have fewer.
        var isAwaited = false
    }

    /// Bytes of one stream.
    static let ofStream = 2 << 10
    /// Bytes for which a writer that waits is woken.
    static let enough = ofStream / 2
    /// Bytes of all streams of one kind.
    private static let ofOrdinary = 16 << 10
    private static let ofUrgent = 8 << 10

    private var ordinary = Count()
    private var urgent = Count()
    private var mostUrgent = Count()

    subscript(kind: Kind) -> Count {
        get {
            switch kind {
            case .ordinary: ordinary
            case .urgent: urgent
            case .mostUrgent: mostUrgent
            }
        }
        set {
            switch kind {
            case .ordinary: ordinary = newValue
            case .urgent: urgent = newValue
            case .mostUrgent: mostUrgent = newValue
            }
        }
    }

    /// What the streams of a kind may have more; below zero where they wrote while there was room for all.
    func room(for kind: Kind) -> Int { (kind == .ordinary ? Self.ofOrdinary : Self.ofUrgent) - self[kind].bytes }

    /// Whether there is enough where a writer waits for it. He is thought of no more then.
    mutating func becameFree() -> Bool {
        var isFree = false
        for kind in Kind.allCases where self[kind].isAwaited && room(for: kind) >= Self.enough {
            self[kind].isAwaited = false
            isFree = true
        }
        return isFree
    }
}

extension QUICEndpoint {
    /// What the connections from one address may have written together that isn't acknowledged: unless it is set, an eighth of what all
    /// may hold, and at least as much as lets one connection, alone, fill its buffer.
    static func sendMemoryShare(of configuration: EndpointConfiguration) -> Int {
        if let share = configuration.maxUnacknowledgedBytesPerAddress { return max(share, 0) }
        let ofOne = configuration.server?.transport.sendBuffer(for: StreamPriority(urgency: 0)) ?? 0
        return max(configuration.maxBufferedBytes / 8, leastSendMemoryShare, 2 * min(ofOne, Int.max / 8))
    }

    private static let leastSendMemoryShare = 16 << 20
    /// Nanoseconds after which writers are told of what those that were told before them have left.
    private static let offerPause: UInt64 = 1_000_000

    /// A server's connection begins.
    func joinSendMemory(_ connection: QUICEngineConnection) {
        let address = connection.handshakeAddressKey
        let memory = sendMemoryByAddress[address] ?? AddressSendMemory(share: maxSendMemoryPerAddress)
        memory.connections += 1
        sendMemoryByAddress[address] = memory
        connection.addressSendMemory = memory
    }

    /// It is over: nothing of it is sent any more.
    func leaveSendMemory(_ connection: QUICEngineConnection) {
        guard let memory = connection.addressSendMemory else { return }
        connection.addressSendMemory = nil
        memory.waiters.remove(connection)
        memory.total -= connection.sendBufferBytes
        memory.connections -= 1
        if memory.connections == 0 { sendMemoryByAddress[connection.handshakeAddressKey] = nil }
        offer(memory, now: connection.now)
    }

    /// Wakes the connections that wait for room and have it, those with the fewest bytes first. No more at a time than find it: a
    /// thousand writers would else wake for each acknowledgement, all but one of them in vain. The others are told a little later, of
    /// what is left then, whether those before them wrote or not.
    func offer(_ memory: AddressSendMemory, now: QUICInstant) {
        guard !memory.isUnoffered, !memory.waiters.isEmpty else { return }
        var left = max(1, (memory.share - memory.total) / QUICEngineConnection.leastSendMemory)
        while let next = memory.waiters.first, next.hasSharedRoom(of: memory) {
            guard left > 0 else { return offerLater(memory, now: now) }
            left -= 1
            memory.waiters.remove(next)
            next.reportWritableForAddress()
        }
    }

    func offerLater(_ memory: AddressSendMemory, now: QUICInstant) {
        guard !memory.isUnoffered else { return }
        memory.isUnoffered = true
        unofferedSendMemory.append(memory)
        if sendMemoryOffer == nil { sendMemoryOffer = now.advanced(byNanoseconds: Self.offerPause) }
    }

    /// Some of a connection's writers are to be told of its first bytes.
    func serveLater(_ connection: QUICEngineConnection) {
        guard !connection.isUnserved else { return }
        connection.isUnserved = true
        unservedWriters.append(connection)
        if sendMemoryOffer == nil { sendMemoryOffer = connection.now.advanced(byNanoseconds: Self.offerPause) }
    }

    /// Tells the next ones.
    func offerSendMemory(now: QUICInstant) {
        let (unoffered, unserved) = (unofferedSendMemory, unservedWriters)
        unofferedSendMemory = []
        unservedWriters = []
        sendMemoryOffer = nil
        for connection in unserved {
            connection.isUnserved = false
            connection.advance(to: now)
            connection.offerAddressRoom()
        }
        for memory in unoffered {
            memory.isUnoffered = false
            offer(memory, now: now)
        }
    }
}

/// What the connections from one address have written and is not acknowledged, datagrams only until they leave. Its connections refer
/// to it, as each write asks.
final class AddressSendMemory {
    /// Bytes that they may have together, but for what each may have in any case.
    let share: Int
    @exclusivity(unchecked) var total = 0
    var connections = 0
    /// Connections with writers that wait for room.
    @exclusivity(unchecked) var waiters = SendWaiters()
    /// Some of those that have it are to be told of it yet.
    @exclusivity(unchecked) var isUnoffered = false

    init(share: Int) { self.share = share }
}
