import Glibc
import Logging
import NIOCore
import NIOPosix

/// Tells when the machine's addresses change.
///
/// Linux says so on a route socket (rtnetlink(7)); what changed is read from the list of interfaces, since messages can
/// be lost. Where the socket is refused the list is read every few seconds instead. Confined to its loop.
///
/// ```
///           a socket                      lost, as when messages were
///   start -----------> listening ------------------------------------> pausing
///     |                    ^------------ another socket -----------------|
///     '--- none ---> polling <-------------------- none -----------------'
/// ```
final class NetworkMonitor {
    private let loop: any EventLoop
    private let logger: Logger
    private let changed: @Sendable (AddressChange) -> Void
    private let source: Source
    private var addresses: Set<String> = []
    private var channel: (any Channel)?
    private var poll: RepeatedTask?
    private var isStopped = false
    private var check: Scheduled<Void>?

    static let pollInterval = TimeAmount.seconds(5)
    /// A change of network comes as a burst of messages.
    static let settleTime = TimeAmount.milliseconds(50)

    /// Where the news come from.
    struct Source: Sendable {
        /// A descriptor that becomes readable when something changes; nil: there is none.
        var socket: @Sendable () -> CInt?
        /// The addresses of all interfaces that are up; nil: they can't be read now.
        var addresses: @Sendable () -> Set<String>?

        /// This machine.
        static let machine = Source(socket: NetworkMonitor.routeSocket, addresses: NetworkMonitor.present)
    }

    init(
        loop: any EventLoop, logger: Logger, source: Source = .machine,
        changed: @escaping @Sendable (AddressChange) -> Void
    ) {
        self.loop = loop
        self.logger = logger
        self.source = source
        self.changed = changed
    }

    func start() {
        addresses = source.addresses() ?? []
        listen()
    }

    private func listen() {
        guard let socket = source.socket() else { return startPolling() }
        let bound = NIOLoopBound(self, eventLoop: loop)
        NIOPipeBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let messages = RouteMessages(
                        arrived: { bound.value.somethingChanged() }, ended: { bound.value.socketLost() })
                    try channel.pipeline.syncOperations.addHandler(messages)
                }
            }
            .takingOwnershipOfDescriptor(input: socket)
            .whenComplete { result in
                let monitor = bound.value
                switch result {
                case .success(let channel):
                    if monitor.isStopped { channel.close(promise: nil) } else { monitor.channel = channel }
                case .failure(let error):
                    close(socket)
                    monitor.logger.debug("no route socket, polling instead", metadata: ["error": "\(error)"])
                    if !monitor.isStopped { monitor.startPolling() }
                }
            }
    }

    func stop() {
        isStopped = true
        channel?.close(promise: nil)
        poll?.cancel()
        check?.cancel()
    }

    /// The channel closes with its first error, which stands for messages that were lost. What changes until there is another
    /// socket shows in the list then; the pause keeps one that fails at once from being opened all the time.
    private func socketLost() {
        channel = nil
        guard !isStopped else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: Self.settleTime) {
            guard !bound.value.isStopped else { return }
            bound.value.listen()
            bound.value.compare()
        }
    }

    private func startPolling() {
        let bound = NIOLoopBound(self, eventLoop: loop)
        poll = loop.scheduleRepeatedTask(initialDelay: Self.pollInterval, delay: Self.pollInterval) { _ in
            bound.value.compare()
        }
    }

    private func somethingChanged() {
        guard check == nil, !isStopped else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        check = loop.scheduleTask(in: Self.settleTime) {
            bound.value.check = nil
            bound.value.compare()
        }
    }

    private func compare() {
        // A list that can't be read is no news about any address.
        guard !isStopped, let now = source.addresses(), let change = AddressChange(from: addresses, to: now) else {
            return
        }
        addresses = now
        changed(change)
    }

    /// Every address of every interface that is up, numeric.
    static func present() -> Set<String>? {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return nil }
        defer { freeifaddrs(first) }
        var addresses: Set<String> = []
        var next = first
        while let entry = next?.pointee {
            if let address = usableAddress(entry) { addresses.insert(address) }
            next = entry.ifa_next
        }
        return addresses
    }

    /// The IP address of one entry, numeric; nil where it is none, and where the interface is down: that keeps its IPv4 addresses, from
    /// which nothing leaves.
    static func usableAddress(_ entry: ifaddrs) -> String? {
        let isUp: UInt32 = 0x1  // IFF_UP
        guard entry.ifa_flags & isUp != 0, let address = entry.ifa_addr else { return nil }
        let bytes = UnsafeRawPointer(address)
        switch CInt(address.pointee.sa_family) {
        case AF_INET: return SocketAddress(bytes.load(as: sockaddr_in.self), host: "").ipAddress
        case AF_INET6: return SocketAddress(bytes.load(as: sockaddr_in6.self), host: "").ipAddress
        default: return nil
        }
    }

    /// A socket that becomes readable when a link or an address changes.
    private static func routeSocket() -> CInt? {
        let netlinkRoute: CInt = 0
        let groups: UInt32 = 0x1 | 0x10 | 0x100  // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
        let type = CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_NETLINK, type, netlinkRoute)
        guard descriptor >= 0 else { return nil }
        // struct sockaddr_nl, which the C library's Swift module leaves out: family, padding, port ID, groups.
        var address = (UInt16(AF_NETLINK), UInt16(0), UInt32(0), groups)
        let bound = withUnsafeMutableBytes(of: &address) { bytes in
            bytes.withMemoryRebound(to: sockaddr.self) { pointer in
                bind(descriptor, pointer.baseAddress, socklen_t(12))
            }
        }
        guard bound == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }
}

/// Reads route messages only to learn that there are some.
private final class RouteMessages: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let arrived: () -> Void
    private let ended: () -> Void

    init(arrived: @escaping () -> Void, ended: @escaping () -> Void) {
        self.arrived = arrived
        self.ended = ended
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { arrived() }

    func channelInactive(context: ChannelHandlerContext) { ended() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // ENOBUFS: messages were lost, so something changed. The channel closes.
        arrived()
    }
}
