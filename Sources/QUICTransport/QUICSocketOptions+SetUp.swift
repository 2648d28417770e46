internal import Glibc
internal import NIOCore
internal import NIOPosix

extension QUICSocketOptions {
    /// Asks for what makes UDP fast and safe; whatever the kernel doesn't have is done without.
    /// - Returns: the channel's socket; nil: the channel has none, or it is closed.
    func setUp(_ channel: any Channel, isIPv6: Bool) -> DatagramSocket? {
        guard let sync = channel.syncOptions else { return nil }
        try? sync.setOption(.explicitCongestionNotification, value: true)
        if receiveOffload, System.supportsUDPReceiveOffload {
            // The segment size first: a joined datagram without it could not be taken apart.
            if (try? sync.setOption(.datagramReceiveSegmentSize, value: true)) != nil {
                try? sync.setOption(.datagramReceiveOffload, value: true)
            }
        }
        return try? channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { fd in
            setUp(fd, isIPv6: isIPv6)
            return DatagramSocket(channel: channel, descriptor: fd)
        }
    }

    private func setUp(_ descriptor: CInt, isIPv6: Bool) {
        // NIO lets a program that the process starts inherit it: that would keep the port, and the datagrams, behind our end.
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        // PROBE: never fragment, and let path MTU discovery send what the kernel's own guess would refuse.
        if isIPv6 {
            Self.set(descriptor, Int32(IPPROTO_IPV6), IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
        } else {
            Self.set(descriptor, Int32(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        }
        // The FORCE variants pass the system's limit and need a privilege; without it the limit cuts the size.
        if !Self.set(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer) {
            Self.set(descriptor, SOL_SOCKET, SO_RCVBUF, receiveBuffer)
        }
        if !Self.set(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, sendBuffer) {
            Self.set(descriptor, SOL_SOCKET, SO_SNDBUF, sendBuffer)
        }
    }

    @discardableResult
    private static func set(_ descriptor: CInt, _ level: CInt, _ name: CInt, _ value: CInt) -> Bool {
        var value = value
        return setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<CInt>.size)) == 0
    }
}
