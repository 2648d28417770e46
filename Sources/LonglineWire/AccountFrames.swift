/// The server does not erase the account; the session goes on.
public struct ErasureRefused: Hashable, Sendable {
    /// Why.
    public var code: RefusalCode
    /// For refusals that are worth another try: not before this many milliseconds.
    public var retryAfter: UInt64

    /// A refusal.
    public init(code: RefusalCode, retryAfter: UInt64 = 0) {
        self.code = code
        self.retryAfter = retryAfter
    }
}

extension ErasureRefused {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try code.write(to: &sink)
        try sink.varint(retryAfter, "retry after")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let code = try reader.varint32("code")
        guard code != 0 else { throw reader.malformed("code", "is 0") }
        self.init(code: RefusalCode(rawValue: code), retryAfter: try reader.varint("retry after"))
    }
}
