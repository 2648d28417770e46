public import QUICEngine

/// What the sockets of an endpoint did since the start.
public struct QUICSocketCounters: Sendable, Hashable {
    /// Messages taken from the kernel; one may hold several datagrams.
    public var messagesReceived: UInt64 = 0
    /// Messages that held several datagrams (GRO).
    public var joinedMessagesReceived: UInt64 = 0
    /// Looks into the sockets, ahead of a sleep, that found packets (``QUICSocketOptions/busyPoll``).
    public var readsWithoutSleep: UInt64 = 0
    /// Datagrams received.
    public var datagramsReceived: UInt64 = 0
    /// Datagrams sent.
    public var datagramsSent: UInt64 = 0
    /// Messages given to the kernel; one may hold several datagrams.
    public var messagesSent: UInt64 = 0
    /// Messages that held several datagrams (GSO).
    public var segmentedMessagesSent: UInt64 = 0
    /// Datagrams dropped because their sender can't be answered.
    public var unanswerableDropped: UInt64 = 0
    /// Runs lost because no socket has their local address any more.
    public var unroutableRuns: UInt64 = 0
    /// Runs dropped because their remote address is none to send to, or because the kernel refused an earlier one to it while the
    /// socket's buffer is full.
    public var blockedRuns: UInt64 = 0
    /// Messages lost because the kernel refused to send them (a firewall, no route, no memory). Their sockets serve on, but for those
    /// that count in ``socketFailures``.
    public var sendErrors: UInt64 = 0
    /// Messages lost whose datagrams have at most 1,200 bytes, because the interface takes only smaller ones: QUIC can't be used
    /// there (RFC 9000 section 14).
    public var minimumSizeErrors: UInt64 = 0
    /// Datagrams handed to the loop that their connection ID names, because the kernel gave them to another.
    public var handedOver: UInt64 = 0
    /// Datagrams lost on that way because the other loop's queue was full.
    public var handoverDropped: UInt64 = 0
    /// Sockets whose binding gave their group a filter by which the kernel chooses the loop; the first of a group does not.
    public var socketsSteered: UInt64 = 0
    /// Sockets that ended by themselves: closed by someone else, or by an error while their buffer was full.
    public var socketFailures: UInt64 = 0
    /// Sockets that were bound again after that, with their connections intact.
    public var socketsRebound: UInt64 = 0

    /// All zero.
    public init() {}
}

/// What an endpoint counted over all its loops since the start.
public struct QUICTransportCounters: Sendable, Hashable {
    /// The sockets.
    public var sockets = QUICSocketCounters()
    /// The engine, summed over the loops.
    public var engine = EndpointCounters()
    /// Connections that aren't closed.
    public var connections = 0
    /// Bytes that the connections hold now, as `EndpointConfiguration.maxBufferedBytes` counts them.
    public var bufferedBytes = 0
    /// Datagrams that came in and were dropped because no task took them.
    public var datagramsNotTaken: UInt64 = 0

    /// All zero.
    public init() {}

    mutating func add(_ other: QUICTransportCounters) {
        connections += other.connections
        bufferedBytes += other.bufferedBytes
        datagramsNotTaken += other.datagramsNotTaken
        sockets.messagesReceived += other.sockets.messagesReceived
        sockets.joinedMessagesReceived += other.sockets.joinedMessagesReceived
        sockets.readsWithoutSleep += other.sockets.readsWithoutSleep
        sockets.datagramsReceived += other.sockets.datagramsReceived
        sockets.datagramsSent += other.sockets.datagramsSent
        sockets.messagesSent += other.sockets.messagesSent
        sockets.segmentedMessagesSent += other.sockets.segmentedMessagesSent
        sockets.unanswerableDropped += other.sockets.unanswerableDropped
        sockets.unroutableRuns += other.sockets.unroutableRuns
        sockets.blockedRuns += other.sockets.blockedRuns
        sockets.sendErrors += other.sockets.sendErrors
        sockets.minimumSizeErrors += other.sockets.minimumSizeErrors
        sockets.handedOver += other.sockets.handedOver
        sockets.handoverDropped += other.sockets.handoverDropped
        sockets.socketsSteered += other.sockets.socketsSteered
        sockets.socketFailures += other.sockets.socketFailures
        sockets.socketsRebound += other.sockets.socketsRebound
        engine.add(other.engine)
    }
}

extension EndpointCounters {
    fileprivate mutating func add(_ other: EndpointCounters) {
        datagramsReceived += other.datagramsReceived
        bytesReceived += other.bytesReceived
        datagramsSent += other.datagramsSent
        bytesSent += other.bytesSent
        garbageDatagrams += other.garbageDatagrams
        unknownConnectionIDs += other.unknownConnectionIDs
        statelessResetsSent += other.statelessResetsSent
        statelessResetsReceived += other.statelessResetsReceived
        retriesSent += other.retriesSent
        versionNegotiationsSent += other.versionNegotiationsSent
        connectionsRefused += other.connectionsRefused
        connectionsRefusedForMemory += other.connectionsRefusedForMemory
        connectionsEndedForMemory += other.connectionsEndedForMemory
        windowsWithheld += other.windowsWithheld
        writesWithheld += other.writesWithheld
        connectionsAccepted += other.connectionsAccepted
        connectionsInitiated += other.connectionsInitiated
        handshakesCompleted += other.handshakesCompleted
        handshakesFailed += other.handshakesFailed
        handshakesResumed += other.handshakesResumed
        earlyDataAccepted += other.earlyDataAccepted
        earlyDataRejected += other.earlyDataRejected
        datagramsFromRefusedPaths += other.datagramsFromRefusedPaths
        datagramFramesDropped += other.datagramFramesDropped
        datagramFramesExpired += other.datagramFramesExpired
        protocolErrors += other.protocolErrors
        containedFrames += other.containedFrames
        containedHandshakeMessages += other.containedHandshakeMessages
    }
}
