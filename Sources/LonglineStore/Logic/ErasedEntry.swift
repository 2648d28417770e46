import LonglineWire
import NIOCore

/// What is left in the log of a message that was retracted, and of its edits: the place, and who took it.
///
/// It is written as a retraction that names nothing, which no publish makes. So a log needs no further mark, and an erased
/// entry can't leave the store: it can't be encoded.
extension Entry {
    /// Whether only its place is left.
    var isErased: Bool { kind == .retracted && target == nil }

    /// Takes all but the place.
    mutating func erase() {
        kind = .retracted
        target = nil
        payload = ByteBuffer()
        following = 0
    }

    /// Why a device gets a skip in its place at a wall-clock time, in milliseconds since 1970; nil when it gets the entry.
    func absence(at now: UInt64) -> SkipReason? {
        if isErased { return .retracted }
        return isExpired(at: now) ? .expired : nil
    }
}
