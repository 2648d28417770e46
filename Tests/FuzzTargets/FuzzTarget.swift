/// Where bytes from outside come in, each as a function of one input. libFuzzer calls it through `scripts/fuzz`, the suite
/// with the corpus that is kept.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// Datagrams that a server and a client receive from strangers, and from somebody who reads and changes their own.
    case datagrams
    /// What a peer that has the keys can put into its packets: frames and TLS messages, from the first packet on.
    case frames
    /// The guard that reads decrypted packets before ngtcp2 does.
    case frameGuard
    /// The frames of the session protocol, in pieces of any size.
    case wire
    /// The session state machines of server and client, whatever the other side says on any lane at any time.
    case sessions
    /// HTTP/3 on server and client: whatever the peer puts on its streams, in pieces of any size, with its ends and resets.
    case http3

    /// Runs one input. A crash, a failed assertion or an error is a finding.
    public func run(_ input: UnsafeRawBufferPointer) throws {
        let input = FuzzInput(input)
        switch self {
        case .datagrams: try DatagramFuzzing.run(input)
        case .frames: try FrameFuzzing.run(input)
        case .frameGuard: try GuardFuzzing.run(input)
        case .wire: try WireFuzzing.run(input)
        case .sessions:
            var choices = try SessionChoices(input)
            if choices.input.byte() & 1 == 0 {
                try ServerSessionFuzzing.run(choices)
            } else {
                try ClientSessionFuzzing.run(choices)
            }
        case .http3:
            var choices = HTTP3Choices(input: input)
            if choices.input.byte() & 1 == 0 {
                try HTTP3ServerFuzzing.run(choices)
            } else {
                try HTTP3ClientFuzzing.run(choices)
            }
        }
    }
}

/// Something that must hold whatever the input does not.
public struct FuzzFinding: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}
