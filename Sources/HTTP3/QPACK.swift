internal import CHTTP3Shim
internal import HTTPTypes
internal import NIOCore

/// A header or trailer section in the form that the encoder takes: names and values one behind the other.
struct FieldLines {
    private(set) var bytes: [UInt8] = []
    private(set) var fields: [llh3_field] = []
    /// The size that counts for SETTINGS_MAX_FIELD_SECTION_SIZE (RFC 9114 section 4.2.2).
    private(set) var size = 0

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        fields.removeAll(keepingCapacity: true)
        size = 0
    }

    mutating func append(name: String, value: String, flags: UInt32 = 0) {
        let start = bytes.count
        bytes.append(contentsOf: name.utf8)
        let middle = bytes.count
        bytes.append(contentsOf: value.utf8)
        add(nameLength: middle - start, valueLength: bytes.count - middle, flags: flags)
    }

    mutating func append(name: String, valueBytes: UnsafeBufferPointer<UInt8>, flags: UInt32) {
        bytes.append(contentsOf: name.utf8)
        bytes.append(contentsOf: valueBytes)
        add(nameLength: name.utf8.count, valueLength: valueBytes.count, flags: flags)
    }

    private mutating func add(nameLength: Int, valueLength: Int, flags: UInt32) {
        fields.append(
            llh3_field(
                name_length: UInt32(clamping: nameLength), value_length: UInt32(clamping: valueLength), token: -1,
                flags: flags))
        size += nameLength + valueLength + 32
    }
}

/// Our side's QPACK encoder (RFC 9204). Until the peer's settings are known, and while its encoder stream is held up, it makes
/// sections that need no dynamic table: an instruction that can't leave would hold up the section that needs it
/// (section 2.1.3).
final class FieldEncoder {
    /// Above it the peer's table isn't used: what refers to it must be kept for it.
    private static let largestPeerCapacity: UInt64 = 1 << 20

    private let plain: OpaquePointer
    @exclusivity(unchecked) private var dynamic: OpaquePointer?

    init?() {
        guard let encoder = llh3_encoder_new(0, 0, 0) else { return nil }
        plain = encoder
    }

    deinit {
        llh3_encoder_free(plain)
        if let dynamic { llh3_encoder_free(dynamic) }
    }

    /// The peer said what its decoder allows; once.
    func allow(peerCapacity: UInt64, blockedStreams: UInt64, ownCapacity: Int) {
        guard dynamic == nil, ownCapacity > 0, (64...Self.largestPeerCapacity).contains(peerCapacity) else { return }
        dynamic = llh3_encoder_new(peerCapacity, ownCapacity, Int(min(blockedStreams, 1 << 16)))
    }

    /// Whether the peer's table may be used.
    var hasTable: Bool { dynamic != nil }

    /// Appends an encoded section, as a HEADERS frame.
    /// - Parameters:
    ///   - usesTable: whether it may refer to the dynamic table and add to it.
    ///   - instructions: gets what belongs on the encoder stream.
    /// - Returns: false: no memory, or the encoder has failed.
    func encode(
        _ lines: FieldLines, for stream: UInt64, usesTable: Bool, into buffer: inout ByteBuffer,
        instructions: inout ByteBuffer
    ) -> Bool {
        let encoder = usesTable ? dynamic ?? plain : plain
        let result = lines.bytes.withUnsafeBufferPointer { bytes in
            lines.fields.withUnsafeBufferPointer { fields in
                llh3_encoder_encode(encoder, Int64(stream), bytes.baseAddress, fields.baseAddress, fields.count)
            }
        }
        guard result == LLH3_OK else { return false }
        var prefixLength = 0
        var linesLength = 0
        let prefix = llh3_encoder_prefix(encoder, &prefixLength)
        let encoded = llh3_encoder_lines(encoder, &linesLength)
        buffer.writeFrameHeader(FrameType.headers, length: prefixLength + linesLength)
        buffer.writeBytes(UnsafeRawBufferPointer(start: prefix, count: prefixLength))
        buffer.writeBytes(UnsafeRawBufferPointer(start: encoded, count: linesLength))
        var instructionsLength = 0
        let added = llh3_encoder_instructions(encoder, &instructionsLength)
        if instructionsLength > 0 {
            instructions.writeBytes(UnsafeRawBufferPointer(start: added, count: instructionsLength))
        }
        return true
    }

    /// Takes bytes of the peer's decoder stream.
    func read(_ bytes: UnsafeRawBufferPointer) throws(Violation) {
        guard let base = bytes.bindMemory(to: UInt8.self).baseAddress, !bytes.isEmpty else { return }
        guard let dynamic else {
            // Nothing of ours ever referred to a table, so there is nothing to acknowledge; only streams can be cancelled.
            return try readWithoutTable(bytes)
        }
        switch llh3_encoder_read(dynamic, base, bytes.count) {
        case Int32(LLH3_OK): break
        case Int32(LLH3_NO_MEMORY): throw .connection(.internalError, "no memory for the decoder stream")
        default: throw .connection(.qpackDecoderStreamError, "an instruction on the decoder stream is invalid")
        }
    }

    private func readWithoutTable(_ bytes: UnsafeRawBufferPointer) throws(Violation) {
        // The encoder without a table judges as one with an empty table does.
        guard let base = bytes.bindMemory(to: UInt8.self).baseAddress else { return }
        guard llh3_encoder_read(plain, base, bytes.count) == LLH3_OK else {
            throw .connection(.qpackDecoderStreamError, "an acknowledgement of what was never sent")
        }
    }
}

/// A section that waits for table entries.
struct BlockedSection {
    fileprivate var partial: OpaquePointer?
    let bytes: [UInt8]
}

/// Our side's QPACK decoder (RFC 9204).
final class FieldDecoder {
    enum Outcome { case decoded, blocked(BlockedSection), tooLarge }

    private let decoder: OpaquePointer
    @exclusivity(unchecked) private(set) var section = llh3_section()

    init?(capacity: Int, blockedStreams: Int) {
        // All that may wait go on with one instruction of the peer, and are acknowledged before any of that can leave.
        guard let decoder = llh3_decoder_new(capacity, blockedStreams, max(1000, blockedStreams)) else { return nil }
        self.decoder = decoder
    }

    deinit {
        llh3_decoder_free(decoder)
        llh3_section_free(&section)
    }

    /// Takes bytes of the peer's encoder stream.
    func read(_ bytes: UnsafeRawBufferPointer) throws(Violation) {
        guard let base = bytes.bindMemory(to: UInt8.self).baseAddress, !bytes.isEmpty else { return }
        switch llh3_decoder_read(decoder, base, bytes.count) {
        case Int32(LLH3_OK): break
        case Int32(LLH3_NO_MEMORY): throw .connection(.internalError, "no memory for the encoder stream")
        default: throw .connection(.qpackEncoderStreamError, "an instruction on the encoder stream is invalid")
        }
    }

    /// Decodes a whole section into ``section``.
    func decode(_ bytes: UnsafeRawBufferPointer, stream: UInt64, limit: Int) throws(Violation) -> Outcome {
        var partial: OpaquePointer?
        let result = llh3_decoder_decode(
            decoder, &partial, Int64(stream), bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count, limit,
            &section)
        guard result == LLH3_BLOCKED else { return try Self.outcome(result) }
        return .blocked(BlockedSection(partial: partial, bytes: Array(bytes)))
    }

    /// Goes on with one that waited.
    func resume(_ blocked: inout BlockedSection, stream: UInt64, limit: Int) throws(Violation) -> Outcome {
        let (decoder, bytes) = (self.decoder, blocked.bytes)
        var partial = blocked.partial
        let result = bytes.withUnsafeBufferPointer {
            llh3_decoder_decode(decoder, &partial, Int64(stream), $0.baseAddress, $0.count, limit, &section)
        }
        blocked.partial = partial
        guard result == LLH3_BLOCKED else { return try Self.outcome(result) }
        return .blocked(blocked)
    }

    private static func outcome(_ result: Int32) throws(Violation) -> Outcome {
        switch result {
        case Int32(LLH3_OK): return .decoded
        case Int32(LLH3_TOO_LARGE): return .tooLarge
        case Int32(LLH3_NO_MEMORY): throw .connection(.internalError, "no memory for a field section")
        default: throw .connection(.qpackDecompressionFailed, "a field section can't be decoded")
        }
    }

    /// The stream is given up with sections that weren't decoded.
    func cancel(stream: UInt64, _ blocked: BlockedSection?) {
        var partial = blocked?.partial
        // No memory: the peer keeps entries for longer, and nothing else happens.
        _ = llh3_decoder_cancel(decoder, &partial, Int64(stream))
    }

    /// Appends what belongs on the decoder stream.
    func takeInstructions(into buffer: inout ByteBuffer) {
        var length = 0
        let bytes = llh3_decoder_instructions(decoder, &length)
        if length > 0 { buffer.writeBytes(UnsafeRawBufferPointer(start: bytes, count: length)) }
    }
}
