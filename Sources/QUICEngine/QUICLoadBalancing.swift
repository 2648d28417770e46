import CGnuTLS
import CQUICShim

/// Connection IDs after QUIC-LB (draft-ietf-quic-load-balancers-21): a load balancer that knows the configuration reads
/// the server's ID from every packet and steers without state, also when the client's address changes.
///
/// ```
/// octet 0                     1 ..< 1 + s + n             last
/// rotation (3 bits) | length  server ID (s) | nonce (n)   worker
///                             `-- encrypted with a key -'
/// ```
/// The worker's byte is in the clear, behind what the load balancer looks at, for a filter in the server's kernel that has
/// no key. It is the same for all connection IDs of a connection, so that an observer of two networks who has little else
/// to go by can narrow down which connections may be one; an endpoint with one loop has nothing to tell there.
public struct QUICLoadBalancing: Sendable, Hashable {
    /// Names the configuration among those in use, so that it can be replaced: from 0 to 6.
    public let rotation: UInt8
    /// Bytes that make an ID unique and hard to guess: from 8, so that the server ID has at most 10 bytes.
    public let nonceLength: Int
    /// AES-128 key, 16 bytes, shared with the load balancer; nil: the server ID can be read by everybody.
    public let key: [UInt8]?

    /// The worker's byte.
    static let trailerLength = 1
    static let smallestNonce = 8

    /// A configuration; the load balancer gets the same.
    /// - Parameters:
    ///   - rotation: from 0 to 6.
    ///   - nonceLength: from 8 to 17 bytes.
    ///   - key: 16 bytes, or nil for server IDs in the clear.
    /// - Throws: `QUICError` with `invalidConfiguration` for values out of range.
    public init(rotation: UInt8, nonceLength: Int = 8, key: [UInt8]? = nil) throws(QUICError) {
        guard rotation <= 6, (Self.smallestNonce...17).contains(nonceLength), key.map({ $0.count == 16 }) ?? true else {
            throw QUICError(
                .invalidConfiguration, "This load balancing configuration isn't possible",
                advice: "Use a rotation from 0 to 6, a nonce from 8 to 17 bytes, and a key of 16 bytes.")
        }
        self.rotation = rotation
        self.nonceLength = nonceLength
        self.key = key
    }

    /// What a connection ID of this configuration says.
    public struct Decoded: Sendable, Hashable {
        /// The server.
        public var serverID: [UInt8]
        /// What made the ID unique.
        public var nonce: [UInt8]
        /// The event loop.
        public var workerID: UInt8
    }

    /// Reads a connection ID as a load balancer does; nil if it isn't of this configuration.
    /// - Parameters:
    ///   - connectionID: the destination connection ID of a packet.
    ///   - serverIDLength: in bytes, the same for all servers of a configuration: from 1, and with the nonce at most 18.
    /// - Throws: `QUICError` with `invalidConfiguration` for a length that no server of this configuration can have.
    public func decode(_ connectionID: [UInt8], serverIDLength: Int) throws(QUICError) -> Decoded? {
        let longest = longestServerID
        guard (1...longest).contains(serverIDLength) else {
            throw QUICError(
                .invalidConfiguration, "A server ID of \(serverIDLength) bytes doesn't fit",
                advice: "Use from 1 to \(longest) bytes, as many as the servers' IDs have.")
        }
        let length = serverIDLength + nonceLength
        guard connectionID.count == 1 + length + Self.trailerLength, let first = connectionID.first,
            first == firstOctet(serverIDLength: serverIDLength), let worker = connectionID.last
        else { return nil }
        var text = Array(connectionID[1..<1 + length])
        if let key {
            guard let cipher = AESBlock(key: key), cipher.decryptID(&text) else { return nil }
        }
        return Decoded(
            serverID: Array(text.prefix(serverIDLength)), nonce: Array(text.dropFirst(serverIDLength)), workerID: worker
        )
    }

    /// Bytes of a connection ID that its other parts leave; at least one.
    var longestServerID: Int { Int(LLQ_MAX_CID_LENGTH) - 1 - Self.trailerLength - nonceLength }

    /// The rotation, and the length of what follows.
    func firstOctet(serverIDLength: Int) -> UInt8 {
        rotation << 5 | UInt8(serverIDLength + nonceLength + Self.trailerLength)
    }
}

/// AES-128 of single blocks, and the draft's two ways to encrypt a connection ID with it. Not thread-safe.
final class AESBlock {
    private let handle: gnutls_cipher_hd_t

    /// nil: the TLS library has no AES, or the key has not 16 bytes.
    init?(key: [UInt8]) {
        guard key.count == Self.size else { return nil }
        var handle: gnutls_cipher_hd_t?
        var key = key
        var zero = Self.zero
        // One block of CBC under a vector of zeros is ECB.
        let result = key.withUnsafeMutableBufferPointer { key in
            zero.withUnsafeMutableBufferPointer { vector in
                var keyDatum = gnutls_datum_t(data: key.baseAddress, size: UInt32(key.count))
                var vectorDatum = gnutls_datum_t(data: vector.baseAddress, size: UInt32(vector.count))
                return gnutls_cipher_init(&handle, GNUTLS_CIPHER_AES_128_CBC, &keyDatum, &vectorDatum)
            }
        }
        guard result == 0, let handle else { return nil }
        self.handle = handle
    }

    deinit { gnutls_cipher_deinit(handle) }

    private static let size = 16
    private static let zero = [UInt8](repeating: 0, count: size)

    private func transform(_ block: inout [UInt8], encrypting: Bool) -> Bool {
        var zero = Self.zero
        gnutls_cipher_set_iv(handle, &zero, zero.count)
        let result = block.withUnsafeMutableBytes { bytes in
            encrypting
                ? gnutls_cipher_encrypt(handle, bytes.baseAddress, bytes.count)
                : gnutls_cipher_decrypt(handle, bytes.baseAddress, bytes.count)
        }
        return result == 0
    }

    /// Encrypts server ID and nonce in place (section 5.4 of the draft).
    func encryptID(_ text: inout [UInt8]) -> Bool {
        guard text.count != Self.size else { return transform(&text, encrypting: true) }
        return feistel(&text, passes: [1, 2, 3, 4])
    }

    func decryptID(_ text: inout [UInt8]) -> Bool {
        guard text.count != Self.size else { return transform(&text, encrypting: false) }
        return feistel(&text, passes: [4, 3, 2, 1])
    }

    /// The network of four rounds: odd passes change the right half by the left one, even passes the left by the right. An
    /// odd number of bytes gives each half four bits of the one in the middle.
    private func feistel(_ text: inout [UInt8], passes: [UInt8]) -> Bool {
        let count = text.count
        let half = (count + 1) / 2
        let isOdd = count % 2 == 1
        var left = Array(text.prefix(half))
        var right = Array(text.suffix(half))
        if isOdd {
            left[half - 1] &= 0xf0
            right[0] &= 0x0f
        }
        for pass in passes {
            let changesRight = pass % 2 == 1
            let source = changesRight ? left : right
            var block = source + [UInt8](repeating: 0, count: Self.size - 2 - half) + [UInt8(count), pass]
            guard transform(&block, encrypting: true) else { return false }
            for index in 0..<half {
                if changesRight { right[index] ^= block[index] } else { left[index] ^= block[index] }
            }
            if isOdd {
                left[half - 1] &= 0xf0
                right[0] &= 0x0f
            }
        }
        text = isOdd ? Array(left.dropLast()) + [left[half - 1] | right[0]] + right.dropFirst() : left + right
        return true
    }
}
