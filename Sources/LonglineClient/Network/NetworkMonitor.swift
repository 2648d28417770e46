import Glibc
import Logging
import NIOCore
import NIOPosix

/// Tells when the machine's addresses change.
///
/// Linux says so on a route socket (rtnetlink(7)); what changed is read from the list of interfaces, since messages can
/// be lost. Where the socket is refused the list is read every few seconds instead. Confined to its loop.
final class NetworkMonitor {
    private let loop: any EventLoop
    private let logger: Logger
    private let changed: @Sendable (AddressChange) -> Void
    private var addresses: Set<String> = []
    private var channel: (any Channel)?
    private var poll: RepeatedTask?
    private var isStopped = false
    private var check: Scheduled<Void>?

    static let pollInterval = TimeAmount.seconds(5)
    /// A change of network comes as a burst of messages.
    static let settleTime = TimeAmount.milliseconds(50)

    init(loop: any EventLoop, logger: Logger, changed: @escaping @Sendable (AddressChange) -> Void) {
        self.loop = loop
        self.logger = logger
        self.changed = changed
    }

    func start() {
        addresses = Self.present() ?? []
        guard let socket = Self.routeSocket() else { return startPolling() }
        let bound = NIOLoopBound(self, eventLoop: loop)
        NIOPipeBootstrap(group: loop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(RouteMessages { bound.value.somethingChanged() })
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
        guard !isStopped, let now = Self.present(), let change = AddressChange(from: addresses, to: now) else { return }
        addresses = now
        changed(change)
    }

    /// Every address of every interface, numeric.
    static func present() -> Set<String>? {
        (try? System.enumerateDevices()).map { devices in Set(devices.compactMap { $0.address?.ipAddress }) }
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

    init(_ arrived: @escaping () -> Void) { self.arrived = arrived }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { arrived() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // ENOBUFS: messages were lost, so something changed.
        arrived()
    }
}
