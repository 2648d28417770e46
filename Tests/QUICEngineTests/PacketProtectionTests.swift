import CQUICShim
import Foundation
import LonglineTestKit
import QUICEngine
import Testing

/// One key of one implementation.
private final class Protector: @unchecked Sendable {
    // Proof: one task at a time uses it, as one connection is used.
    private let pointer: OpaquePointer

    init(_ protection: TransportSettings.PacketProtection, key: [UInt8], maskKey: [UInt8]) throws {
        let code = protection == .ipsecMB ? LLQ_PROTECTION_IPSEC_MB : LLQ_PROTECTION_GNUTLS
        pointer = try #require(llq_protector_new(Int32(code), key.count, key, maskKey))
    }

    deinit { llq_protector_free(pointer) }

    func seal(_ plaintext: [UInt8], nonce: [UInt8], header: [UInt8]) throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: plaintext.count + 16)
        try #require(
            llq_protector_seal(pointer, &result, plaintext, plaintext.count, nonce, header, header.count) == 0)
        return result
    }

    /// nil: the tag is wrong.
    func open(_ ciphertext: [UInt8], nonce: [UInt8], header: [UInt8]) -> [UInt8]? {
        var result = [UInt8](repeating: 0, count: ciphertext.count)
        guard llq_protector_open(pointer, &result, ciphertext, ciphertext.count, nonce, header, header.count) == 0
        else { return nil }
        return Array(result.dropLast(16))
    }

    func mask(_ sample: [UInt8]) throws -> [UInt8] {
        var result = [UInt8](repeating: 0, count: 5)
        try #require(llq_protector_mask(pointer, &result, sample) == 0)
        return result
    }
}

private func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.filter { !$0.isWhitespace }.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// What can be tested here: intel-ipsec-mb only where it is built in and the CPU can run it.
private let available = [TransportSettings.PacketProtection.gnuTLS, .ipsecMB].filter(\.isAvailable)

@Suite("Packet protection")
struct PacketProtectionTests {
    @Test("The server's Initial of RFC 9001 appendix A.3", arguments: available)
    func knownAnswer(protection: TransportSettings.PacketProtection) throws {
        let protector = try Protector(
            protection, key: bytes("cf3a5331653c364c88f0f379b6067e37"),
            maskKey: bytes("c206b8d9b9f0f37644430b490eeaa314"))
        // The IV, with packet number 1 in its end.
        let nonce = bytes("0ac1493ca1905853b0bba03f")
        let header = bytes("c1000000010008f067a5502a4262b50040750001")
        let payload = bytes(
            """
            02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a04
            5a1200130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32b
            b9da1a002b00020304
            """)
        let packet = bytes(
            """
            cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554
            780bb38cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b
            562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee
            """)
        let sealed = try protector.seal(payload, nonce: nonce, header: header)
        #expect(sealed == Array(packet[header.count...]))
        #expect(protector.open(sealed, nonce: nonce, header: header) == payload)
        // The sample begins four bytes behind the packet number's start, which is two bytes long here.
        let mask = try protector.mask(Array(sealed[2..<18]))
        #expect(mask == bytes("2ec0d8356a"))
        #expect(header[0] ^ (mask[0] & 0x0F) == packet[0])
        #expect(header[18] ^ mask[1] == packet[18])
        #expect(header[19] ^ mask[2] == packet[19])
    }

    @Test("A changed packet, header or number doesn't open", arguments: available)
    func forgery(protection: TransportSettings.PacketProtection) throws {
        let protector = try Protector(
            protection, key: [UInt8](repeating: 1, count: 16), maskKey: [UInt8](repeating: 2, count: 16))
        let (nonce, header) = ([UInt8](repeating: 3, count: 12), [UInt8](repeating: 0x43, count: 13))
        let sealed = try protector.seal([UInt8](repeating: 5, count: 40), nonce: nonce, header: header)
        for index in sealed.indices {
            var forged = sealed
            forged[index] ^= 0x10
            #expect(protector.open(forged, nonce: nonce, header: header) == nil, "byte \(index)")
        }
        var other = header
        other[12] ^= 1
        #expect(protector.open(sealed, nonce: nonce, header: other) == nil)
        #expect(protector.open(sealed, nonce: [UInt8](repeating: 4, count: 12), header: header) == nil)
        #expect(protector.open(Array(sealed.prefix(15)), nonce: nonce, header: header) == nil)
    }

    @Test(
        "Both implementations agree on random input",
        .enabled(if: available.count > 1, "intel-ipsec-mb can't run here"),
        arguments: [16, 32])
    func agreement(keyLength: Int) throws {
        let seed: UInt64 = 0x9001
        var random = SeededRandom(seed: seed)
        func draw(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) } }
        for round in 0..<500 {
            let (key, maskKey) = (draw(keyLength), draw(keyLength))
            let gnuTLS = try Protector(.gnuTLS, key: key, maskKey: maskKey)
            let ipsecMB = try Protector(.ipsecMB, key: key, maskKey: maskKey)
            let (nonce, header) = (draw(12), draw(Int.random(in: 1...40, using: &random)))
            let plaintext = draw(round < 300 ? round : Int.random(in: 300...1500, using: &random))
            let sealed = try gnuTLS.seal(plaintext, nonce: nonce, header: header)
            #expect(try ipsecMB.seal(plaintext, nonce: nonce, header: header) == sealed, "seed \(seed), round \(round)")
            #expect(ipsecMB.open(sealed, nonce: nonce, header: header) == plaintext, "seed \(seed), round \(round)")
            #expect(gnuTLS.open(sealed, nonce: nonce, header: header) == plaintext, "seed \(seed), round \(round)")
            let sample = draw(16)
            #expect(try ipsecMB.mask(sample) == gnuTLS.mask(sample), "seed \(seed), round \(round)")
        }
    }

    @Test(
        "Keys work on when more of them are in use than a thread keeps expanded, and on another thread",
        .enabled(if: available.count > 1, "intel-ipsec-mb can't run here"),
        arguments: [16, 32])
    func manyKeys(keyLength: Int) async throws {
        func key(_ index: Int) -> [UInt8] { (0..<keyLength).map { UInt8(truncatingIfNeeded: index >> (8 * ($0 & 1))) } }
        let (nonce, header) = ([UInt8](repeating: 3, count: 12), [UInt8](repeating: 0x43, count: 13))
        let maskKey = [UInt8](repeating: 2, count: keyLength)
        // Each has two AEAD keys.
        var protectors = try (0..<700).map { try Protector(.ipsecMB, key: key($0), maskKey: maskKey) }
        let expected = try (0..<700).map {
            try Protector(.gnuTLS, key: key($0), maskKey: maskKey).seal([1, 2, 3], nonce: nonce, header: header)
        }
        @Sendable func check(_ protectors: [Protector], step: Int) throws {
            for index in stride(from: 0, to: protectors.count, by: step) {
                let sealed = try protectors[index].seal([1, 2, 3], nonce: nonce, header: header)
                #expect(sealed == expected[index], "key \(index)")
                #expect(protectors[index].open(sealed, nonce: nonce, header: header) == [1, 2, 3], "key \(index)")
            }
        }
        try check(protectors, step: 1)
        try check(protectors, step: 7)
        let shared = protectors
        let done = AsyncStream<Result<Void, any Error>>.makeStream()
        Thread.detachNewThread {
            done.continuation.yield(Result { try check(shared, step: 3) })
            done.continuation.finish()
        }
        for await result in done.stream { try result.get() }
        protectors.removeLast(350)
        try check(protectors, step: 1)
    }

    @Test("packets are read up to a number that no honest peer comes to", arguments: 1...4)
    func numbersAreBounded(bytes: Int) {
        func isRead(_ number: UInt64, expecting expected: UInt64) -> Bool {
            let id = [UInt8](repeating: 7, count: 8)
            let low = (0..<bytes).reversed().map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
            let header = [0x40 | UInt8(bytes - 1)] + id + low
            return llq_number_is_read(expected, header, header.count) != 0
        }
        // As far as the bytes that it goes without tell.
        let half: UInt64 = 1 << UInt64(8 * bytes - 1)
        let last: UInt64 = (1 << 62) - (1 << 33)
        for number in [0, 1, half] { #expect(isRead(number, expecting: 0)) }
        for number in [last - half + 1, last - 1, last] { #expect(isRead(number, expecting: last)) }
        for number in [last + 1, last + half - 1, last + half] { #expect(!isRead(number, expecting: last)) }
        #expect(!isRead(last + 1, expecting: last - half + 1))
    }
}
