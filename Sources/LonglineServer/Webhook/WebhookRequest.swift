import Crypto
import FoundationEssentials
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1

/// What goes over the wire to tell of a notification.
///
/// ```
///   POST /path
///   Longline-Timestamp: 1800000000
///   Longline-Key: 2026-11
///   Longline-Signature: v1=<HMAC-SHA256 of "1800000000." and the body, in hexadecimal>
///
///   {"collapse":"…","conversation":"user/alice","count":2,…}
/// ```
/// The receiver recomputes the signature, and refuses a timestamp that is more than 5 minutes from its clock: so an old request
/// can't be sent again by somebody else. `id` is the same in every repetition, and another for other news.
enum WebhookRequest {
    private struct Body: Encodable {
        var cancel: Bool?
        var id: String
        var collapse: String
        var tenant: String
        var user: String
        var conversation: String
        var channel: String
        var epoch: String
        var offset: UInt64
        var sender: String?
        var count: UInt64?
        var time: UInt64
        var expiry: UInt64?
        var payload: String?
    }

    static func body(_ notification: PendingNotification) throws -> [UInt8] {
        let key = notification.key
        let conversation = "\(key.tenant)/\(key.user)/\(key.conversation)"
        let isCancel = notification.isCancel
        // The time tells what is left of news whose last was taken back, which stands before that, from what was told of that place.
        let place =
            "\(conversation)/\(notification.position.epoch)/\(notification.position.offset)"
            + (isCancel ? "/cancel" : "/\(notification.time)")
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(
            try encoder.encode(
                Body(
                    cancel: isCancel ? true : nil, id: name(place), collapse: name(conversation),
                    tenant: key.tenant.description,
                    user: key.user.description, conversation: key.conversation.description,
                    channel: notification.channel.description, epoch: "\(notification.position.epoch)",
                    offset: notification.position.offset, sender: isCancel ? nil : notification.sender.description,
                    count: isCancel ? nil : notification.count, time: notification.time,
                    expiry: notification.expiry == 0 ? nil : notification.expiry,
                    payload: notification.payload.map { Data($0.readableBytesView).base64EncodedString() })))
    }

    /// - Parameter time: in milliseconds since 1970.
    static func headers(_ body: [UInt8], key: WebhookKey, time: UInt64) -> HTTPHeaders {
        let timestamp = "\(time / 1_000)"
        return [
            "longline-timestamp": timestamp, "longline-key": key.id,
            "longline-signature": "v1=" + signature(of: body, timestamp: timestamp, key: key),
        ]
    }

    static func signature(of body: [UInt8], timestamp: String, key: WebhookKey) -> String {
        var code = HMAC<SHA256>(key: SymmetricKey(data: key.secret))
        code.update(data: Array("\(timestamp).".utf8))
        code.update(data: body)
        return hex(code.finalize())
    }

    /// 128 bits that name a text, and don't tell it: APNs takes 64 bytes as a collapse ID.
    private static func name(_ text: String) -> String { hex(SHA256.hash(data: Array(text.utf8)).prefix(16)) }

    private static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.reduce(into: "") { text, byte in text += (byte < 16 ? "0" : "") + String(byte, radix: 16) }
    }
}
