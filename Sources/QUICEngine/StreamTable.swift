/// A connection's streams by number.
///
/// The one that was asked for last is found without a search: what comes on a stream is a note, an event, a read and often
/// a write, one after the other.
struct StreamTable {
    private var streams: [UInt64: EngineStream] = [:]
    private var recent: EngineStream?

    var isEmpty: Bool { streams.isEmpty }
    var all: Dictionary<UInt64, EngineStream>.Values { streams.values }

    subscript(id: QUICStreamID) -> EngineStream? {
        mutating get {
            if let recent, recent.id == id { return recent }
            guard let found = streams[id.rawValue] else { return nil }
            recent = found
            return found
        }
    }

    /// By ngtcp2's number, which is never negative for a stream that exists.
    subscript(id: Int64) -> EngineStream? {
        mutating get { self[QUICStreamID(rawValue: UInt64(id))] }
    }

    mutating func insert(_ stream: EngineStream) {
        streams[stream.id.rawValue] = stream
        recent = stream
    }

    /// - Returns: whether it was there.
    mutating func remove(_ stream: EngineStream) -> Bool {
        if recent === stream { recent = nil }
        return streams.removeValue(forKey: stream.id.rawValue) != nil
    }
}
