import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore

/// Takes messages back for those who moderate an app, whoever wrote them.
///
/// A retraction is done once by its nature, so it needs no idempotency key: what is gone is gone, whoever asks again.
struct RetractionRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let idempotency: IdempotencyKeys
    let time: @Sendable () -> UInt64

    private static let path = "/v1/channels/{id}/messages/{offset}"

    var routes: [ControlRoute] {
        [ControlRoute(.delete, Self.path, on: .service) { request, context in try await retract(request, context) }]
    }

    /// A message, where a retraction names it.
    private struct Target {
        var position: Position
        /// Where the retraction is published: for a direct message, whom that went to.
        var channel: ChannelID
        /// Who wrote the message, where the retraction has to come from them; nil: in a room, or to all.
        var author: UserID?
    }

    private func retract(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .retract)
        let channel = try context.channel("id")
        try request.requireQuery(only: ["epoch", "reason", "sender"])
        let position = try Self.position(
            epoch: try request.query("epoch"), offset: context.parameters.get("offset"))
        let reason = ByteBuffer(string: try request.query("reason") ?? "")
        let named = try request.queryName("sender").map { name throws(Problem) in
            try checked("sender", name, UserID.init)
        }
        let key = ChannelKey(tenant: caller.tenant, channel: channel)
        for _ in 0..<MessageRoutes.attempts {
            guard let target = try await target(at: position, in: key) else { return .noContent }
            if target.author != nil, named != nil {
                throw Problem(.invalidRequest, "'sender' is not for direct messages, whose author takes them back")
            }
            let sender = try target.author ?? named ?? UserID(RoomRoutes.standardSender)
            let outcome = try await server.publishUnlessErasing(
                ServicePublish(
                    tenant: caller.tenant, channel: target.channel, sender: sender,
                    device: try MessageRoutes.device(of: caller.key), producer: MessageRoutes.producer(of: caller.key),
                    id: try await idempotency.number(of: caller.key.id), tag: .random(in: .min ... .max),
                    payload: reason, kind: .retract(target.position)))
            guard let outcome else { throw Problem.beingErased }
            switch outcome {
            case .entered, .duplicate:
                context.audit.notice(
                    "message retracted",
                    metadata: [
                        "tenant": "\(caller.tenant)", "channel": "\(channel)", "offset": "\(position.offset)",
                        "api_key": "\(caller.key.id)",
                    ])
                return .noContent
            // Another did it meanwhile, or a later number of this API key went first: it is looked at again.
            case .refused(let refused) where [.unknownTarget, .idReused, .outcomeUnknown].contains(refused.code):
                continue
            case .refused(let refused): throw MessageRoutes.problem(refused)
            }
        }
        throw Problem(.overloaded, retryAfter: 1)
    }

    private static func position(epoch: String?, offset: String?) throws(Problem) -> Position {
        func digits(_ name: String, _ text: String?) throws(Problem) -> String {
            guard let text, !text.isEmpty,
                text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
            else { throw Problem(.invalidRequest, "'\(name)' has to be a number, as in the message's page") }
            return text
        }
        guard let offset = UInt64(try digits("offset", offset)), (1...FrameLimits.maximumNumber).contains(offset) else {
            throw Problem(.invalidRequest, "'offset' has to be 1 to \(FrameLimits.maximumNumber)")
        }
        // No log has one beyond.
        guard let epoch = UInt64(try digits("epoch", epoch)) else { throw absent }
        return Position(epoch: epoch, offset: offset)
    }

    // MARK: The message

    /// Looks for a message.
    /// - Returns: nil where it was retracted.
    /// - Throws: ``Problem`` where there is none.
    private func target(at position: Position, in key: ChannelKey) async throws -> Target? {
        let (item, epoch) = try await item(at: position.offset, in: key)
        guard let item, epoch == position.epoch else { throw Self.absent }
        guard case .entry(let entry) = item else {
            if case .skip(let skip) = item, skip.reason == .retracted { return nil }
            throw Self.absent
        }
        guard entry.kind == .message else {
            throw Problem(.invalidRequest, "only messages are retracted, and edits with them")
        }
        guard case .user(let owner) = key.channel else { return Target(position: position, channel: key.channel) }
        guard let origin = entry.origin else {
            return Target(position: position, channel: .user(entry.recipient ?? owner), author: owner)
        }
        // The recipient's copy: with the author's record it goes as well.
        let author = ChannelKey(tenant: key.tenant, channel: .user(entry.sender))
        let (found, life) = try await self.item(at: origin.offset, in: author)
        guard case .entry(let record) = found, record.kind == .message, record.recipient == owner else {
            throw Problem(.notFound, "who sent it has it no more")
        }
        return Target(
            position: Position(epoch: life, offset: record.offset), channel: .user(owner), author: entry.sender)
    }

    private static let absent = Problem(.notFound, "there is no such message")

    /// What stands in a place of a channel's log, and the log's life.
    private func item(at offset: Offset, in key: ChannelKey) async throws -> (item: LogItem?, epoch: Epoch) {
        let range = LogRange(after: offset - 1, upTo: offset, direction: .newer, maximumEntries: 1, maximumBytes: 1)
        do {
            let page = try await server.openStore().page(key, range, now: time())
            return (page.items.first, page.epoch)
        } catch let error as StoreError {
            throw Problem(readingChannel: error)
        }
    }
}
