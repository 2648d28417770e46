/// How the sockets of an endpoint are set up. What a kernel doesn't offer is left out, without an error.
public struct QUICSocketOptions: Sendable, Hashable {
    /// Whether several datagrams of one path leave in one system call (Linux UDP_SEGMENT). Off, or where a device
    /// can't do it, each leaves by itself.
    public var segmentationOffload = true
    /// Whether the kernel may join datagrams of one path on receipt (Linux UDP_GRO).
    public var receiveOffload = true
    /// Whether the kernel gives a server's datagrams to the loop that their connection ID names (Linux, a classic BPF
    /// filter). Off, or where the kernel can't, it chooses by address, and the loops hand over what came to the wrong
    /// one after a client's change of path.
    public var kernelSteering = true
    /// The kernel's receive buffer to ask for, in bytes: 4 MiB. The system's limit (Linux net.core.rmem_max) cuts it.
    public var receiveBuffer: Int32 = 4 << 20
    /// The kernel's send buffer to ask for, in bytes: 4 MiB. The system's limit (Linux net.core.wmem_max) cuts it.
    public var sendBuffer: Int32 = 4 << 20
    /// Messages read by one system call, from 1 to 64: 16. Each has a slot of 64 KiB, so that a joined datagram fits.
    public var messagesPerRead = 16
    /// How long a server's loop that has nothing to do looks into its sockets before it sleeps, up to 500 µs: 50 µs; zero: it sleeps at
    /// once, as a client's always does, whose battery it would cost.
    ///
    /// A peer that waits for each answer gets it sooner, as the server needn't be woken for each request: in half the time on loopback.
    /// The loop looks only after packets came eight times in a row within this time, or 40 µs more, of its having handled those before,
    /// and sleeps again when one doesn't. While it looks it takes a whole core, and other channels on its event loop wait for some
    /// 500 µs; tasks don't.
    public var busyPoll = Duration.microseconds(50)
    /// The longest ``busyPoll``: 500 µs. More counts as that.
    public static let longestBusyPoll = Duration.nanoseconds(Int64(BusyPolling.turn))

    /// The defaults.
    public init() {}

    /// For tests: how many times longer a loop takes everything to be.
    var busyPollScale: UInt64 = 1

    var busyPolling: BusyPolling {
        let bounded = min(max(busyPoll, .zero), Self.longestBusyPoll)
        return BusyPolling(limit: UInt64(bounded.components.attoseconds / 1_000_000_000), scale: busyPollScale)
    }
}
