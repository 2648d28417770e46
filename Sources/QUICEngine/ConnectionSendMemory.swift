/// A host that reads nothing makes a server keep what it wrote for it, on each of its connections: a hundred of them, each with all
/// that ``TransportSettings/connectionSendBuffer`` allows, would take what those of an endpoint may hold. Here nobody has to go for it, as
/// where data came out of order: a writer waits.
extension QUICEngineConnection {
    /// Bytes that each connection may have written, whatever the others of its address have: who is behind the same NAT as such a
    /// host goes on, and its own acknowledgements wake its writers.
    static let leastSendMemory = 16 << 10

    /// Bytes that this connection may take of its address's share now, for a stream of this kind. A connection may have as many as are
    /// free of the share, so that each of those that take all they can is left less than the one before, and the next one something.
    func addressRoom(isUrgent: Bool) -> Int {
        guard let memory = addressSendMemory else { return .max }
        let least = isUrgent ? Self.leastSendMemory + Self.leastSendMemory / 8 : Self.leastSendMemory
        return max(least - sendBufferBytes, (memory.share - memory.total - sendBufferBytes) / 2)
    }

    /// Bytes of datagrams that each connection may have waiting in any case.
    private static let leastDatagramMemory = 4 << 10

    /// Whether a datagram may wait besides those that do: as with streams, where their address has no more of its share free. One may
    /// always.
    func hasRoom(forDatagramOf count: Int) -> Bool {
        guard let memory = addressSendMemory, !datagramsToSend.isEmpty else { return true }
        let own = countedDatagramBytes
        return count <= max(Self.leastDatagramMemory - own, (memory.share - memory.total - own) / 2)
    }

    /// After each change of what waits.
    func countQueuedDatagrams() {
        let difference = datagramsToSend.byteCount - countedDatagramBytes
        guard difference != 0 else { return }
        countedDatagramBytes += difference
        context.storage.memory.held += difference
        addressSendMemory?.total += difference
    }

    /// None leaves any more.
    func dropQueuedDatagrams() {
        datagramsToSend = DatagramQueue()
        countQueuedDatagrams()
    }

    /// Half of what is kept for it anyway is free: enough to wake those that wait.
    var hasAddressRoom: Bool { addressRoom(isUrgent: false) >= Self.leastSendMemory / 2 }
}

extension QUICEndpoint {
    /// What the connections from one address may have written together that isn't acknowledged: an eighth of what all may hold, and at
    /// least as much as lets one connection, alone, fill its buffer.
    static func sendMemoryShare(of configuration: EndpointConfiguration) -> Int {
        let ofOne = configuration.server?.transport.sendBuffer(for: StreamPriority(urgency: 0)) ?? 0
        return max(configuration.maxBufferedBytes / 8, leastSendMemoryShare, 2 * min(ofOne, Int.max / 8))
    }

    private static let leastSendMemoryShare = 16 << 20

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
        memory.total -= connection.sendBufferBytes
        memory.connections -= 1
        if memory.connections == 0 { sendMemoryByAddress[connection.handshakeAddressKey] = nil }
    }
}

/// What the connections from one address have written and is not acknowledged, datagrams only until they leave. Its connections refer
/// to it, as each write asks.
final class AddressSendMemory {
    /// Bytes that they may have together, but for what each may have in any case.
    let share: Int
    @exclusivity(unchecked) var total = 0
    var connections = 0

    init(share: Int) { self.share = share }
}
