import Foundation
import LonglineClient
import LonglineWire
import NIOCore

/// Messages as one JSON object a line, for programs.
extension Terminal {
    private struct Line: Encodable {
        var channel: String
        var epoch: String
        var offset: UInt64
        var kind: String
        var sender: String
        var device: String
        var recipient: String?
        var target: UInt64?
        var change: String?
        var time: UInt64
        var text: String?
        var bytes: Int
        var file: String?
        var redelivered: Bool
        var gapBefore: Bool
    }

    /// - Parameter file: where its payload was written to; nil: it is a text.
    static func json(_ message: Message, file: String? = nil) throws -> String {
        let line = Line(
            channel: message.channel.description, epoch: String(message.position.epoch, radix: 16),
            offset: message.position.offset, kind: "\(message.kind)", sender: message.sender.description,
            device: message.device.description, recipient: message.recipient?.description,
            target: message.target?.offset, change: words(message.change), time: message.time,
            // What records a change are bytes of the protocol.
            text: file == nil && message.kind != .changed ? message.text : nil,
            bytes: message.payload.readableBytes, file: file,
            redelivered: message.redelivered, gapBefore: message.gapBefore != nil)
        return try json(line)
    }

    /// One object in a line, its members by their names.
    static func json(_ object: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(object), as: UTF8.self)
    }
}
