import CQUICShim

/// What a connection offers its peer and how it behaves. Windows are what the peer may send before the application
/// reads; they bound the memory a peer can make us hold.
public struct TransportSettings: Sendable {
    /// The congestion controllers.
    public enum CongestionControl: Sendable { case cubic, bbr }

    /// Who encrypts and decrypts 1-RTT packets with AES-GCM.
    public enum PacketProtection: Sendable, CaseIterable {
        /// The fastest there is. `LONGLINE_PACKET_PROTECTION=gnutls` in the environment rules intel-ipsec-mb out.
        case automatic
        /// GnuTLS, always there.
        case gnuTLS
        /// intel-ipsec-mb, where it is built in (package trait `IPSecMB`) and the CPU has AVX-512 with VAES; else GnuTLS.
        case ipsecMB

        /// Whether it is what runs where it is chosen.
        public var isAvailable: Bool { llq_protection_available(code) != 0 || self == .automatic }

        /// What it comes to in this process.
        public var resolved: PacketProtection {
            llq_protection_resolve(code) == Int32(LLQ_PROTECTION_IPSEC_MB) ? .ipsecMB : .gnuTLS
        }

        var code: Int32 {
            switch self {
            case .automatic: Int32(LLQ_PROTECTION_AUTOMATIC)
            case .gnuTLS: Int32(LLQ_PROTECTION_GNUTLS)
            case .ipsecMB: Int32(LLQ_PROTECTION_IPSEC_MB)
            }
        }
    }

    /// A connection without a packet for this long is closed silently.
    public var maxIdleTimeout = QUICDuration.seconds(30)
    /// The time allowed for a handshake.
    public var handshakeTimeout = QUICDuration.seconds(10)
    /// After the handshake a PING is sent when nothing else was for this long; nil: never.
    public var keepAliveInterval: QUICDuration?
    /// Bytes the peer may send on all streams together beyond what the application has read.
    public var connectionWindow: UInt64 = 1 << 20
    /// The same for one stream.
    public var streamWindow: UInt64 = 256 << 10
    /// Bidirectional streams the peer may have open at a time.
    public var maxBidirectionalStreams: UInt64 = 100
    /// Unidirectional streams the peer may have open at a time. With ngtcp2 0.12 a connection ends, with NO_ERROR, after
    /// 4096 of them in all: it can't free them earlier. Use few and long-lived ones, or bidirectional streams.
    public var maxUnidirectionalStreams: UInt64 = 100
    /// Largest DATAGRAM frame accepted, in bytes; 0: datagrams are not offered.
    public var maxDatagramFrameSize: UInt64 = 65535
    /// Datagrams queued to be sent; `sendDatagram` returns false beyond.
    public var datagramQueueLimit = 64
    /// Datagrams received and not yet taken; the oldest is dropped beyond.
    public var receivedDatagramLimit = 256
    /// Bytes held per stream that are not yet acknowledged; `write` takes no more beyond.
    public var streamSendBuffer = 256 << 10
    /// How long an acknowledgement may be held back.
    public var maxAckDelay = QUICDuration.milliseconds(25)
    /// Packets received after which an acknowledgement is sent at once, even if `maxAckDelay` allows to wait: 2 is RFC
    /// 9000's advice, from 1. More saves packets and blurs what the peer's congestion controller sees. ngtcp2 has no
    /// ACK_FREQUENCY frame, so the peer can't be asked to do the same.
    public var ackThreshold = 2
    /// Packets sent under one key at most; the key is updated then (RFC 9001 section 6), and again a while later where
    /// the peer wasn't ready for it. The default lies below what any cipher suite allows; ngtcp2 updates at the limit
    /// itself.
    public var packetsPerKey: UInt64 = 1 << 22
    /// Server: whether clients may move to another address by their own choice. What a NAT does to their ports is
    /// followed in any case.
    public var allowsActiveMigration = true
    /// The congestion controller.
    public var congestionControl = CongestionControl.cubic
    /// Largest UDP payload to send; path MTU discovery probes up to it. At least 1200.
    public var maxUDPPayload = 1452
    /// Whether the path MTU is probed; off, packets are at most 1200 bytes.
    public var discoverPathMTU = true
    /// Whether outgoing packets are marked ECN-capable.
    public var ecn = true
    /// Who protects packets.
    public var packetProtection = PacketProtection.automatic
    /// The round trip assumed before the first is measured.
    public var initialRTT = QUICDuration.milliseconds(333)

    /// The defaults.
    public init() {}
}
