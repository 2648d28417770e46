internal import CHTTP3Shim
internal import QUICEngine
internal import RawStructuredFieldValues

/// When a response shall be sent, among those of its connection (RFC 9218): the `Priority` header field, PRIORITY_UPDATE frames,
/// and the priority of the QUIC stream.
public struct HTTP3Priority: Sendable, Hashable, CustomStringConvertible {
    /// From 0, the most urgent, to 7; 3 unless said otherwise.
    public let urgency: UInt8
    /// Whether the response is of use before all of it is there; false unless said otherwise.
    public let isIncremental: Bool

    /// Urgency 3, not incremental: what a request without the field has.
    public static let standard = HTTP3Priority()

    /// A priority.
    /// - Parameters:
    ///   - urgency: from 0 to 7; larger numbers count as 7.
    ///   - isIncremental: whether the response is of use before all of it is there.
    public init(urgency: UInt8 = 3, isIncremental: Bool = false) {
        self.urgency = min(urgency, StreamPriority.leastUrgent)
        self.isIncremental = isIncremental
    }

    /// Reads a field value (RFC 9218 section 4); parameters that it doesn't have, or that are out of range, get their defaults.
    /// nil: it is no dictionary (RFC 8941). One longer than 256 bytes counts as ``standard``, and isn't looked into.
    public init?(fieldValue: String) {
        var text = fieldValue
        let read = text.withUTF8 { Self.parse(UnsafeRawBufferPointer($0)) }
        guard let read else { return nil }
        self = read
    }

    /// The longest value that is read. Two members have a meaning; the parser of any dictionary looks for each key among all before,
    /// so that 32 KiB of them would stop a loop for tenths of a second.
    static let longest = 256

    static func parse(_ bytes: UnsafeRawBufferPointer) -> HTTP3Priority? {
        guard bytes.count <= longest else { return .standard }
        var urgency = standard.urgency
        var incremental: UInt8 = 0
        guard let base = bytes.bindMemory(to: UInt8.self).baseAddress else { return .standard }
        guard llh3_parse_priority(base, bytes.count, &urgency, &incremental) == 0 else { return parseAny(bytes) }
        return HTTP3Priority(urgency: urgency, isIncremental: incremental != 0)
    }

    /// Any dictionary. nghttp3 refuses those whose parameters are out of range or of another type, which count as absent.
    private static func parseAny(_ bytes: UnsafeRawBufferPointer) -> HTTP3Priority? {
        var parser = StructuredFieldValueParser(Array(bytes))
        guard let members = try? parser.parseDictionaryFieldValue() else { return nil }
        var (urgency, isIncremental) = (standard.urgency, standard.isIncremental)
        if case .item(let item)? = members["u"], case .integer(let value) = item.rfc9651BareItem,
            (0...7).contains(value)
        {
            urgency = UInt8(value)
        }
        if case .item(let item)? = members["i"], case .bool(let value) = item.rfc9651BareItem { isIncremental = value }
        return HTTP3Priority(urgency: urgency, isIncremental: isIncremental)
    }

    /// The field value.
    public var fieldValue: String { isIncremental ? "u=\(urgency), i" : "u=\(urgency)" }

    public var description: String { fieldValue }

    var stream: StreamPriority { StreamPriority(urgency: urgency, isIncremental: isIncremental) }
}
