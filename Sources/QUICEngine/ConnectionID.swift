import CQUICShim

/// A connection ID, at most 20 bytes (RFC 9000 section 17.2).
struct ConnectionID: Hashable, Sendable {
    private var first: UInt64 = 0
    private var second: UInt64 = 0
    private var third: UInt32 = 0
    private var length: UInt8 = 0

    var count: Int { Int(length) }

    init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count <= Int(LLQ_MAX_CID_LENGTH))
        length = UInt8(bytes.count)
        var storage = (UInt64(0), UInt64(0), UInt64(0))
        withUnsafeMutableBytes(of: &storage) { $0.copyMemory(from: bytes) }
        first = storage.0
        second = storage.1
        third = UInt32(truncatingIfNeeded: UInt64(littleEndian: storage.2))
    }

    init(_ cid: llq_cid) {
        self = withUnsafeBytes(of: cid.data) {
            ConnectionID(UnsafeRawBufferPointer(rebasing: $0[0..<Int(cid.length)]))
        }
    }

    var bytes: [UInt8] {
        let cid = shim
        return withUnsafeBytes(of: cid.data) { Array($0.prefix(Int(cid.length))) }
    }

    var shim: llq_cid {
        var cid = llq_cid()
        cid.length = length
        var storage = (first, second, UInt64(third).littleEndian)
        withUnsafeMutableBytes(of: &cid.data) { target in
            withUnsafeBytes(of: &storage) {
                target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[0..<target.count]))
            }
        }
        return cid
    }
}

/// The layout of our connection IDs: the worker's byte, the server's name, then random bytes, all in the clear, so that a
/// kernel filter or a load balancer can steer without a key; or that of ``QUICLoadBalancing``.
struct ConnectionIDLayout {
    /// Random bytes: with them a peer can't guess another connection's ID.
    static let randomLength = 9
    static let maxServerIDLength = 8

    let workerID: UInt8
    let serverID: [UInt8]

    let balancing: QUICLoadBalancing?
    private let cipher: AESBlock?

    var length: Int {
        if let balancing {
            return 1 + serverID.count + balancing.nonceLength + QUICLoadBalancing.trailerLength
        }
        return 1 + serverID.count + Self.randomLength
    }

    /// Throws `invalidConfiguration`.
    init(_ configuration: EndpointConfiguration) throws(QUICError) {
        workerID = configuration.workerID
        serverID = configuration.serverID
        balancing = configuration.loadBalancing
        let available = balancing?.longestServerID ?? Self.maxServerIDLength
        guard serverID.count <= available, balancing == nil || !serverID.isEmpty else {
            throw QUICError(
                .invalidConfiguration, "A server ID of \(serverID.count) bytes doesn't fit",
                advice: "Use \(balancing == nil ? "at most" : "from 1 to") \(available) bytes.")
        }
        if let key = balancing?.key {
            guard let cipher = AESBlock(key: key) else {
                throw QUICError(
                    .internalError, "The TLS library has no AES-128", advice: "Check the installed GnuTLS.")
            }
            self.cipher = cipher
        } else {
            cipher = nil
        }
    }

    func fill(_ target: UnsafeMutableRawBufferPointer, random: RandomSource) {
        precondition(target.count == length)
        if let balancing {
            fill(target, random: random, balancing)
            return
        }
        target[0] = workerID
        for (index, byte) in serverID.enumerated() { target[1 + index] = byte }
        random.fill(UnsafeMutableRawBufferPointer(rebasing: target[(1 + serverID.count)...]))
    }

    private func fill(
        _ target: UnsafeMutableRawBufferPointer, random: RandomSource, _ balancing: QUICLoadBalancing
    ) {
        var text = serverID + random.bytes(balancing.nonceLength)
        let isEncrypted = cipher?.encryptID(&text) ?? true
        assert(isEncrypted, "AES can't fail once there is a key")
        target[0] = balancing.firstOctet(serverIDLength: serverID.count)
        target[target.count - 1] = workerID
        UnsafeMutableRawBufferPointer(rebasing: target[1..<1 + text.count]).copyBytes(from: text)
    }

    func make(random: RandomSource) -> ConnectionID {
        withUnsafeTemporaryAllocation(byteCount: length, alignment: 1) { buffer in
            fill(buffer, random: random)
            return ConnectionID(UnsafeRawBufferPointer(buffer))
        }
    }
}

/// The endpoint's random source, shared by its connections.
final class RandomSource {
    private var generator: any RandomNumberGenerator

    init(_ generator: any RandomNumberGenerator) { self.generator = generator }

    func fill(_ target: UnsafeMutableRawBufferPointer) {
        var index = 0
        while index < target.count {
            var word = generator.next()
            let part = min(8, target.count - index)
            withUnsafeBytes(of: &word) {
                UnsafeMutableRawBufferPointer(rebasing: target[index..<index + part])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[0..<part]))
            }
            index += part
        }
    }

    func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            fill(UnsafeMutableRawBufferPointer(buffer))
            initialized = count
        }
    }
}

extension QUICSocketAddress {
    init(_ address: llq_address) {
        self.init(
            high: address.high, low: address.low, port: address.port, scopeID: address.scope,
            isIPv6: address.is_ipv6 != 0)
    }

    var shim: llq_address {
        llq_address(high: high, low: low, scope: scopeID, port: port, is_ipv6: isIPv6 ? 1 : 0)
    }
}

extension QUICPath {
    init(_ path: llq_path) {
        self.init(local: QUICSocketAddress(path.local), remote: QUICSocketAddress(path.remote))
    }

    var shim: llq_path { llq_path(local: local.shim, remote: remote.shim) }
}
