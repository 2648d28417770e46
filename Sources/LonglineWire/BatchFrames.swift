internal import CDeflate
public import NIOCore

/// How frames of a batch are written. Numbers are those of `ENCODINGS` and `BATCH`.
public struct BatchEncoding: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt32

    /// Wraps a number, known or not.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// As they are.
    public static let identity = BatchEncoding(rawValue: 0)
    /// Raw DEFLATE (RFC 1951).
    public static let deflate = BatchEncoding(rawValue: 1)
}

/// What a client takes of compressed batches.
public struct Encodings: Hashable, Sendable {
    /// What it can read beside ``BatchEncoding/identity``, best first; at most ``FrameLimits/maximumEncodings``. None: it takes no
    /// batches.
    public var encodings: [BatchEncoding]
    /// Channels of which nothing is to be compressed; at most ``FrameLimits/maximumPlainChannels``.
    public var plain: [ChannelID]

    /// What a client takes.
    public init(_ encodings: [BatchEncoding], plain: [ChannelID] = []) {
        self.encodings = encodings
        self.plain = plain
    }
}

/// A run of ``Frame/deliver(_:)`` and ``Frame/skip(_:)`` frames of one lane, in groups of one sender each that are compressed apart
/// from one another.
///
/// What is compressed together can be told from the length of the result: whoever may write some of it, and sees how long that
/// is, finds out whether the rest resembles it. So what different people wrote is never compressed together.
public struct Batch: Hashable, Sendable {
    /// Frames of one sender.
    public struct Group: Hashable, Sendable {
        /// How they are written.
        public var encoding: BatchEncoding
        /// How many they are.
        public var count: Int
        /// Their bytes before compression.
        public var length: Int
        /// The frames, one behind the other.
        public var bytes: ByteBuffer

        /// A group as it came.
        public init(encoding: BatchEncoding, count: Int, length: Int, bytes: ByteBuffer) {
            self.encoding = encoding
            self.count = count
            self.length = length
            self.bytes = bytes
        }
    }

    /// The groups. All together they hold at most ``FrameLimits/maximumBatchFrames`` frames of at most
    /// ``FrameLimits/maximumBatch`` bytes before compression.
    public var groups: [Group]

    /// A batch as it came.
    public init(groups: [Group]) { self.groups = groups }

    /// Frames in it.
    public var count: Int { groups.reduce(0) { $0 + $1.count } }
    /// Bytes of its frames before compression.
    public var length: Int { groups.reduce(0) { $0 + $1.length } }
    /// Bytes that compression saved.
    public var saved: Int { groups.reduce(0) { $0 + $1.length - $1.bytes.readableBytes } }
}

// MARK: Compressing

extension Batch {
    /// Puts a run of frames of one lane into a batch.
    /// - Returns: nil when that saves less than an eighth or does not fit a frame, and for frames that a batch has no place for.
    public init?(of run: some Collection<Frame>) {
        guard (1...FrameLimits.maximumBatchFrames).contains(run.count) else { return nil }
        var order: [UserID] = []
        var bySender: [UserID: (count: Int, bytes: ByteBuffer)] = [:]
        var sender: UserID?
        var rest = (count: 0, bytes: ByteBuffer())
        for frame in run {
            switch frame {
            case .deliver(let deliver) where deliver.entry.following == 0: sender = deliver.entry.sender
            // It tells of numbers only: it goes where the entry before it goes.
            case .skip: break
            default: return nil
            }
            do throws(FrameError) {
                guard let sender else {
                    try FrameEncoder.encode(frame, into: &rest.bytes)
                    rest.count += 1
                    continue
                }
                if bySender[sender] == nil { order.append(sender) }
                try FrameEncoder.encode(frame, into: &bySender[sender, default: (0, ByteBuffer())].bytes)
                bySender[sender]?.count += 1
            } catch {
                return nil
            }
        }
        let groups = (rest.count > 0 ? [rest] : []) + order.compactMap { bySender[$0] }
        guard groups.count <= FrameLimits.maximumBatchGroups else { return nil }
        self.init(groups: groups.map { Group(compressing: $0.bytes, count: $0.count) })
        let plain = length
        guard plain <= FrameLimits.maximumBatch, let size = try? FrameEncoder.encodedSize(.batch(self)),
            size <= plain - plain / 8
        else { return nil }
    }
}

extension Batch.Group {
    /// Compresses frames by themselves, or leaves them as they are where that does not make them smaller.
    init(compressing frames: ByteBuffer, count: Int) {
        let length = frames.readableBytes
        self.init(encoding: .identity, count: count, length: length, bytes: frames)
        guard length > 1 else { return }
        var compressed = ByteBufferAllocator().buffer(capacity: length - 1)
        let written = frames.withUnsafeReadableBytes { source in
            compressed.writeWithUnsafeMutableBytes(minimumWritableBytes: length - 1) { target in
                let source = source.bindMemory(to: UInt8.self)
                let target = target.bindMemory(to: UInt8.self)
                return max(0, llz_deflate(source.baseAddress, source.count, target.baseAddress, length - 1))
            }
        }
        if written > 0 { (encoding, bytes) = (.deflate, compressed) }
    }
}

// MARK: Decompressing

extension Batch {
    /// The frames in it, in the order of their offsets. Memory is bounded by ``length``, which is checked before anything is
    /// decompressed.
    /// - Throws: ``FrameError``: `malformed` when a group is no such run of frames, is longer or shorter than it says, holds other
    ///   frames or those of two senders; and what ``FrameDecoder/next()`` throws for a frame in it.
    public func frames() throws(FrameError) -> [Frame] {
        var frames: [(end: Offset, frame: Frame)] = []
        for group in groups {
            var sender: UserID?
            for frame in try group.frames() {
                switch frame {
                case .deliver(let deliver) where deliver.entry.following == 0:
                    guard sender == nil || sender == deliver.entry.sender else {
                        throw FrameError(.malformed, message: "BATCH: a group of two senders")
                    }
                    sender = deliver.entry.sender
                    frames.append((deliver.entry.offset, frame))
                case .skip(let skip): frames.append((skip.to, frame))
                default: throw FrameError(.malformed, message: "BATCH: holds a \(frame.name)")
                }
            }
        }
        // Groups interleave; offsets grow along a channel.
        frames.sort { $0.end < $1.end }
        return frames.map(\.frame)
    }
}

extension Batch.Group {
    fileprivate func frames() throws(FrameError) -> [Frame] {
        var decoder = FrameDecoder()
        decoder.append(try decompressed())
        var frames: [Frame] = []
        while frames.count <= count, let frame = try decoder.next() { frames.append(frame) }
        guard frames.count == count else {
            throw FrameError(.malformed, message: "BATCH: a group of another number of frames")
        }
        try decoder.finish()
        return frames
    }

    private func decompressed() throws(FrameError) -> ByteBuffer {
        switch encoding {
        case .identity:
            guard bytes.readableBytes == length else { break }
            return bytes
        case .deflate:
            let length = length
            var frames = ByteBufferAllocator().buffer(capacity: length)
            // Apart from what the buffer is told: a failure is not the same as nothing.
            var written = -1
            _ = bytes.withUnsafeReadableBytes { source in
                frames.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { target in
                    let source = source.bindMemory(to: UInt8.self)
                    let target = target.bindMemory(to: UInt8.self)
                    written = llz_inflate(source.baseAddress, source.count, target.baseAddress, length)
                    return max(0, written)
                }
            }
            guard written == length else { break }
            return frames
        default: break
        }
        throw FrameError(.malformed, message: "BATCH: a group that can't be decompressed")
    }
}

// MARK: On the wire

extension Encodings {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.count(encodings.count, limit: FrameLimits.maximumEncodings, "encodings")
        for encoding in encodings { sink.uncheckedVarint(UInt64(encoding.rawValue)) }
        try sink.count(plain.count, limit: FrameLimits.maximumPlainChannels, "plain")
        for channel in plain { sink.channel(channel) }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init([])
        for _ in 0..<(try reader.count("encodings", limit: FrameLimits.maximumEncodings)) {
            encodings.append(BatchEncoding(rawValue: try reader.varint32("encodings")))
        }
        for _ in 0..<(try reader.count("plain", limit: FrameLimits.maximumPlainChannels)) {
            plain.append(try reader.channel("plain"))
        }
    }
}

extension Batch {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.count(groups.count, limit: FrameLimits.maximumBatchGroups, "groups")
        var (frames, length) = (FrameLimits.maximumBatchFrames, FrameLimits.maximumBatch)
        for group in groups {
            sink.uncheckedVarint(UInt64(group.encoding.rawValue))
            try sink.count(group.count, limit: frames, "frames")
            try sink.count(group.length, limit: length, "length")
            frames -= group.count
            length -= group.length
            guard group.bytes.readableBytes <= group.length else {
                throw FrameError(.unrepresentable, message: "bytes are over length")
            }
            try sink.bytes(group.bytes, limit: FrameLimits.maximumBatchBytes, "bytes")
        }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(groups: [])
        var (frames, length) = (FrameLimits.maximumBatchFrames, FrameLimits.maximumBatch)
        for _ in 0..<(try reader.count("groups", limit: FrameLimits.maximumBatchGroups)) {
            let group = Group(
                encoding: BatchEncoding(rawValue: try reader.varint32("encoding")),
                count: try reader.count("frames", limit: frames), length: try reader.count("length", limit: length),
                bytes: try reader.bytes("bytes", limit: FrameLimits.maximumBatchBytes))
            // So that the length bounds what a batch that waits holds, too.
            guard group.bytes.readableBytes <= group.length else { throw reader.malformed("bytes", "are over length") }
            frames -= group.count
            length -= group.length
            groups.append(group)
        }
    }
}
