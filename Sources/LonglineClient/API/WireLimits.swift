import LonglineWire
import NIOCore

// What the wire can't carry is refused where an app or its own store hands it over: a link ends over a frame that can't be
// encoded, and a message in the outbox would end every link.

extension Position {
    /// Whether a frame can carry it. Epochs are opaque 64-bit values; offsets are varints (RFC 9000 section 16).
    var isRepresentable: Bool { offset <= FrameLimits.maximumNumber }

    /// - Throws: ``ClientError/Code/refused`` with `refusal` for an offset that no log can have.
    func checkRepresentable(_ refusal: RefusalCode) throws(ClientError) {
        guard isRepresentable else {
            throw ClientError(
                .refused, message: "an offset that can't be", advice: "take places from messages and pages",
                refusal: refusal)
        }
    }
}

extension PublishKind {
    /// - Throws: ``ClientError/Code/refused`` with ``/LonglineWire/RefusalCode/invalidTarget`` for a target that no log can hold.
    func checkRepresentable() throws(ClientError) { try target?.checkRepresentable(.invalidTarget) }
}

extension StoredPublish {
    /// Whether a frame can carry it, with payloads cut into parts.
    var isRepresentable: Bool {
        let largest = max(id, after, timeToLive, kind.target?.offset ?? 0)
        return largest <= FrameLimits.maximumNumber && payload.readableBytes <= kind.maximumPayload
    }
}

extension [ChannelID: Position] {
    /// The cursors of an app's own store, as they were given.
    /// - Throws: ``ClientError/Code/storage`` for an offset that no log can have.
    func checkedCursors() throws(ClientError) -> Self {
        guard let wrong = first(where: { !$0.value.isRepresentable }) else { return self }
        throw ClientError(
            .storage, message: "the cursor store names an offset of \(wrong.key) that can't be",
            advice: "keep positions of messages, as they are")
    }
}
