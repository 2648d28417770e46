/// A client's places that do not fit into its ``Connect``. It goes before that frame, so that they are there when it is read.
public struct Cursors: Hashable, Sendable {
    /// Whether these, those before them and the connect's are all the places that the device has: in every other channel it has none,
    /// whatever the server's record says.
    public var areAll: Bool
    /// The places; at most ``FrameLimits/maximumCursors``.
    public var cursors: [ChannelPosition]

    /// Places.
    public init(_ cursors: [ChannelPosition], areAll: Bool) {
        self.areAll = areAll
        self.cursors = cursors
    }
}

/// Channels in which the server's record of a device is further than the place at which it goes on, as after a restore of the
/// device. It goes before ``Connected``, so that a client knows them when it reads that.
public struct CursorsAhead: Hashable, Sendable {
    /// The record's places; at most ``FrameLimits/maximumCursors``.
    public var records: [ChannelPosition]

    /// Records.
    public init(_ records: [ChannelPosition]) { self.records = records }
}

extension Cursors {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.byte(areAll ? 1 : 0)
        try cursors.write(to: &sink, "cursors")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        areAll = try reader.flags("all", known: 1) == 1
        cursors = try [ChannelPosition](from: &reader, "cursors")
    }
}

extension CursorsAhead {
    func write(to sink: inout some FrameSink) throws(FrameError) { try records.write(to: &sink, "records") }

    init(from reader: inout FrameReader) throws(FrameError) {
        records = try [ChannelPosition](from: &reader, "records")
    }
}

extension [ChannelPosition] {
    func write(to sink: inout some FrameSink, _ field: StaticString) throws(FrameError) {
        try sink.count(count, limit: FrameLimits.maximumCursors, field)
        for place in self {
            sink.channel(place.channel)
            try sink.position(place.position, "cursor offset")
        }
    }

    init(from reader: inout FrameReader, _ field: StaticString) throws(FrameError) {
        self = []
        for _ in 0..<(try reader.count(field, limit: FrameLimits.maximumCursors)) {
            append(
                ChannelPosition(channel: try reader.channel("cursor channel"), position: try reader.position("cursor")))
        }
    }
}
