public import LonglineWire
public import NIOCore

/// How a client's session behaves; the server's ``/LonglineWire/SessionLimits`` narrow it further.
public struct ClientSessionConfiguration: Sendable {
    /// Protocol versions spoken, best first.
    public var versions: [UInt32] = [1]
    /// The client's name and version, for the server's logs; at most 64 bytes.
    public var agent = "longline"
    /// When beats go out and how long an answer may take.
    public var heartbeat = HeartbeatPolicy()
    /// From `CONNECT` to its answer; then the link ends.
    public var connectTimeout: TimeAmount = .seconds(15)
    /// Bytes of publishes sent before `CONNECTED`, all channels together: at most 64 KiB, as the server holds only so much
    /// for an unproven client. A publish counts its payload and 128 bytes.
    public var earlyBytes = 64 * 1024
    /// Rows kept per channel; ``ClientSession/enqueue(_:now:)`` answers false beyond it.
    public var maximumOutbox = 16 * 1024
    /// Server lanes open (or announced by a higher number) at once.
    public var maximumLanes = 4_096
    /// Lanes of this client open at once, where the link allows as many: what servers take. With half as many open, the one that was
    /// not used for longest is finished for another channel's; at the limit channels wait for one.
    public var maximumOutboundLanes = 512
    /// Bytes of frames kept when lanes overtake CONNECTED; beyond it the link ends and another is tried.
    public var maximumHeldBytes = 4 * 1024 * 1024
    /// An acknowledgement leaves after this many confirmed entries…
    public var acknowledgeEvery = 16
    /// …or this long after the first of them, whichever comes first.
    public var acknowledgeDelay: TimeAmount = .milliseconds(100)
    /// A publish that was refused for now without a named time is sent again after this long.
    public var retryDelay: TimeAmount = .seconds(1)
    /// Whether the server may compress runs of small entries.
    public var acceptsBatches = false
    /// Channels of which nothing is compressed even so. With more than ``/LonglineWire/FrameLimits/maximumPlainChannels``, which
    /// can't be said, nothing is compressed at all.
    public var plainChannels: Set<ChannelID> = []
    /// Cursors in one frame. Fewer than what fits are for tests of what goes into others.
    package var cursorsPerFrame = FrameLimits.maximumCursors
    /// The most bytes of a payload in one frame that is sent; the rest goes on in parts.
    public var partBytes = FrameLimits.maximumPayload
    /// A lane with nothing unacknowledged is finished after this long without a frame. Not soon: one that is opened again costs a
    /// server, on an older ngtcp2, more than one that stays.
    public var laneIdleTime: TimeAmount = .minutes(10)

    /// The defaults above.
    public init() {}
}

extension ClientSessionConfiguration {
    /// What the server is told of batches; nil: nothing, so that it makes none.
    var encodings: Encodings? {
        guard acceptsBatches, plainChannels.count <= FrameLimits.maximumPlainChannels else { return nil }
        return Encodings([.deflate], plain: plainChannels.sorted { $0.description < $1.description })
    }

    /// Whether a batch of a channel was asked for.
    func acceptsBatches(of channel: ChannelID) -> Bool {
        acceptsBatches && plainChannels.count <= FrameLimits.maximumPlainChannels && !plainChannels.contains(channel)
    }
}
