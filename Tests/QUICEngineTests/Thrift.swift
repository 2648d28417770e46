@testable import QUICEngine

/// Makes the connections of an endpoint give the peer fewer connection IDs than they believe.
final class Thrift {
    private(set) var withheld = 0

    /// Call it before they are made.
    init(of endpoint: QUICEndpoint, withholds: @escaping () -> Bool) {
        let length = UInt8(endpoint.layout.length)
        endpoint.rewrite = { [self] plaintext, header in
            guard let first = header.first, first & 0x80 == 0 else { return }
            // Sequence below 16384, nothing retired, an ID of our length: PING and PADDING instead. Counts of an ACK and the
            // type behind them can look like sequence number 0, which is the handshake's.
            for start in 0..<plaintext.count where plaintext[start] == 0x18 && start + 3 < plaintext.count {
                let rest = start + (plaintext[start + 1] & 0x40 == 0 ? 2 : 3)
                let end = rest + 2 + Int(length) + 16
                guard plaintext[start + 1] != 0, end <= plaintext.count, plaintext[rest] == 0,
                    plaintext[rest + 1] == length, withholds()
                else {
                    continue
                }
                plaintext[start] = 0x01
                for index in start + 1..<end { plaintext[index] = 0 }
                withheld += 1
            }
        }
    }
}
