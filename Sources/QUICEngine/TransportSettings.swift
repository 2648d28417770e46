import CQUICShim

/// What a connection offers its peer and how it behaves. Windows are what the peer may send before the application
/// reads; they bound the memory a peer can make us hold. A value out of its range makes the endpoint, or connecting, throw
/// ``QUICError/Code/invalidConfiguration``.
public struct TransportSettings: Sendable {
    /// The congestion controllers.
    public enum CongestionControl: Sendable {
        /// CUBIC (RFC 9438): fills the path until packets are lost.
        case cubic
        /// BBR as the ngtcp2 in use has it: sends as fast as the path was seen to deliver, and yields less to loss.
        case bbr
    }

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

    /// A connection without a packet for this long ends silently, with ``QUICCloseReason/idleTimeout``; 30 s, not zero. The
    /// smaller of the two sides' values counts (RFC 9000 section 10.1).
    public var maxIdleTimeout = QUICDuration.seconds(30)
    /// The time allowed for a handshake; 10 s. The connection ends then with ``QUICCloseReason/handshakeTimeout``.
    public var handshakeTimeout = QUICDuration.seconds(10)
    /// After the handshake a PING is sent when nothing else was for this long; nil or zero: never. To hold a connection it has to be
    /// well below both sides' ``maxIdleTimeout``: the peer's isn't looked at.
    public var keepAliveInterval: QUICDuration?
    /// Bytes the peer may send on all streams together beyond what the application has read: 1 MiB, at most 2^40. At the
    /// limit the peer waits; one that sends more is closed with FLOW_CONTROL_ERROR (RFC 9000 section 4.1).
    public var connectionWindow: UInt64 = 1 << 20
    /// The same for one stream: 256 KiB, at most 2^40.
    public var streamWindow: UInt64 = 256 << 10
    /// Bidirectional streams the peer may have open at a time: 100, at most 2^20. At the limit the peer waits until one ends;
    /// one that opens more is closed with STREAM_LIMIT_ERROR (RFC 9000 section 4.6).
    public var maxBidirectionalStreams: UInt64 = 100
    static let largestStreamLimit: UInt64 = 1 << 20
    /// Unidirectional streams the peer may have open at a time: 100, at most 2^20. With ngtcp2 0.12 a connection ends, with NO_ERROR, after
    /// 4096 of them in all: it can't free them earlier. Use few and long-lived ones, or bidirectional streams.
    public var maxUnidirectionalStreams: UInt64 = 100
    /// Largest DATAGRAM frame (RFC 9221) accepted, in bytes: 65,535, which is the most. 0: datagrams are not offered.
    public var maxDatagramFrameSize: UInt64 = 65535
    /// Datagrams queued to be sent: 64. `sendDatagram` returns false beyond, and where its peer's address has too much to send.
    public var datagramQueueLimit = 64
    /// Datagrams received and not yet taken: 256. The oldest is dropped beyond.
    public var receivedDatagramLimit = 256
    /// Bytes held per stream that are not yet acknowledged: 256 KiB, at least 1,024 bytes. `write` takes no more beyond.
    public var streamSendBuffer = 256 << 10
    /// The same for all streams of the connection together: 8 MiB, so that a peer that opens many and acknowledges nothing
    /// doesn't hold more. Not less than `streamSendBuffer` in effect. Streams above ``StreamPriority/standard`` may go a sixteenth
    /// beyond it, those of urgency 0 an eighth: what the others wrote never keeps them waiting.
    public var connectionSendBuffer = 8 << 20
    /// The same for the streams that are less urgent than ``StreamPriority/standard``, together: no limit of their own by
    /// default. With one, however many they are, the others find room in the connection's buffer and in what the peer lets
    /// us send. Not less than 1,024 bytes.
    public var backgroundSendBuffer = Int.max
    /// How long an acknowledgement may be held back: 25 ms, below 16,384 ms (RFC 9000 section 13.2.1).
    public var maxAckDelay = QUICDuration.milliseconds(25)
    /// Packets received after which an acknowledgement is sent at once, even if `maxAckDelay` allows to wait: 8, and from 1 to
    /// 1,024. A packet counts once for each 256 bytes of it, and once at least: 8 are two full-sized ones, as RFC 9000
    /// section 13.2.2 advises, or eight small ones, where it advises two. More saves packets and blurs what the peer's congestion
    /// controller sees. Fewer than that wait for something to go with, for an eighth of a round trip, though 5 ms at least,
    /// and `maxAckDelay` at most. ngtcp2 has no ACK_FREQUENCY frame, so the peer can't be asked to do the same.
    public var ackThreshold = 8
    /// Packets sent under one key at most; the key is updated then (RFC 9001 section 6), and again a while later where
    /// the peer wasn't ready for it. At least 16; the default, 2^22, lies below what any cipher suite allows; ngtcp2 updates at the limit
    /// itself.
    public var packetsPerKey: UInt64 = 1 << 22
    /// Server: whether clients may move to another address by their own choice. What a NAT does to their ports is
    /// followed in any case.
    public var allowsActiveMigration = true
    /// The congestion controller of what this side sends.
    public var congestionControl = CongestionControl.cubic
    /// Largest UDP payload to send, in bytes; path MTU discovery probes up to it, and goes back to 1,200 where what it found arrives no
    /// more. 1,452, from 1,200 to 65,527.
    public var maxUDPPayload = 1452
    /// Whether the path MTU is probed (RFC 8899); off, UDP payloads are at most 1,200 bytes.
    public var discoverPathMTU = true
    /// Whether outgoing packets are marked ECN-capable (RFC 9000 section 13.4).
    public var ecn = true
    /// Who protects packets.
    public var packetProtection = PacketProtection.automatic
    /// The round trip assumed before the first is measured: 333 ms (RFC 9002 section 6.2.2), not zero, and at most an hour.
    public var initialRTT = QUICDuration.milliseconds(333)

    /// The defaults.
    public init() {}
}
