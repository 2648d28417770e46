import Crypto
import FoundationEssentials
import HTTPTypes
import Hummingbird
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore

/// Messages of an app server: published into channels, and read page by page.
struct MessageRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let idempotency: IdempotencyKeys
    let reader: RequestReader
    let time: @Sendable () -> UInt64

    var routes: [ControlRoute] {
        [
            ControlRoute(.post, "/v1/channels/{id}/messages", on: .service) { request, context in
                try await publish(request, context)
            },
            ControlRoute(.get, "/v1/channels/{id}/messages", on: .service) { request, context in
                try await history(request, context)
            },
        ]
    }

    // MARK: Publish

    private struct Order: RequestBodyMembers, Sendable {
        static let members: Set = ["sender", "text", "payload", "time_to_live"]

        var sender: String
        /// The message as text, or
        var text: String?
        /// in base64.
        var payload: String?
        /// In milliseconds.
        var timeToLive: UInt64?
    }

    private struct Entered: Codable, Sendable {
        /// Where it stands: for a direct message the sender's inbox.
        var channel: String
        var epoch: String
        var offset: UInt64
        /// In milliseconds since 1970.
        var time: UInt64
    }

    /// Base64 takes four bytes for three.
    private func bodyLimit(_ tenant: TenantID) -> Int {
        let largest = server.currentLimits.maximumPayload(in: tenant)
        return largest / 3 * 4 + 8 * 1024
    }

    private func publish(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .publish)
        let channel = try context.channel("id")
        guard let key = try idempotencyKey(request) else {
            throw Problem(
                .idempotencyKeyMissing, "without the header Idempotency-Key a repetition would enter it twice")
        }
        let (order, bytes) = try await reader.json(Order.self, request, limit: bodyLimit(caller.tenant))
        let sender = try checked("sender", order.sender, UserID.init)
        let digest = IdempotencyKeys.digest("POST /v1/channels/\(channel)/messages", bytes)
        let message = ServicePublish(
            tenant: caller.tenant, channel: channel, sender: sender, device: try Self.device(of: caller.key),
            producer: Self.producer(of: caller.key), id: 0, tag: digest.prefix(8).reduce(0) { $0 << 8 | UInt64($1) },
            payload: try Self.payload(order), timeToLive: order.timeToLive ?? 0)
        let largest = server.currentLimits.maximumPayload(in: caller.tenant)
        guard message.payload.readableBytes <= largest else {
            throw Problem(.payloadTooLarge, "a message has at most \(largest) bytes")
        }
        guard message.timeToLive <= maximumNumber else {
            throw Problem(.invalidRequest, "'time_to_live' is over \(maximumNumber)")
        }
        try server.requireRunning()
        let author = UserKey(tenant: caller.tenant, user: sender)
        let result = try await idempotency.once(key, of: caller.key.id, about: author, request: digest) {
            number, isResumed in
            try ControlJSON.encode(try await enter(message, key, caller.key, number, isResumed))
        }
        return .json(result, status: .created)
    }

    /// Enters it, with a number that the ledger takes. Behind the key's row: an erasure that is resolved from here on finds it, and waits for
    /// what is entered until then.
    private func enter(
        _ message: ServicePublish, _ key: String, _ apiKey: APIKeyInfo, _ number: UInt64, _ isResumed: Bool
    ) async throws -> Entered {
        var message = message
        message.id = number
        // Whether the store may have had this number before.
        var isRepeated = isResumed
        for _ in 0..<Self.attempts {
            guard let outcome = try await server.publishUnlessErasing(message) else { throw Problem.beingErased }
            switch outcome {
            case .entered(let published, _, _, _), .duplicate(let published):
                let place = message.channel.isInbox ? ChannelID.user(message.sender) : message.channel
                return Entered(
                    channel: place.description, epoch: "\(published.position.epoch)", offset: published.position.offset,
                    time: published.time)
            case .refused(let refused) where Self.isNotEntered(refused, isRepeated: isRepeated):
                // A later number of this API key went first.
                message.id = try await idempotency.renew(key, of: apiKey.id)
                isRepeated = false
            case .refused(let refused): throw Self.problem(refused)
            }
        }
        throw Problem(.overloaded, retryAfter: 1)
    }

    /// Whether the ledger has gone past a number that is certainly not in: it remembers that it was passed over, or nothing from so far
    /// back, and the store never had it before.
    private static func isNotEntered(_ refused: Refused, isRepeated: Bool) -> Bool {
        refused.code == .idReused || refused.code == .outcomeUnknown && !isRepeated
    }

    /// How many publishes of one API key into one channel may overtake another.
    static let attempts = 8

    static func problem(_ refused: Refused) -> Problem {
        switch refused.code {
        case .unknownChannel: Problem(.notFound, "there is no such channel")
        case .payloadTooLarge: Problem(.payloadTooLarge)
        case .limitReached: Problem(.limitReached, "the tenant has as many broadcasts as it may have")
        case .blocked: Problem(.blocked)
        case .outcomeUnknown, .idReused: Problem(.outcomeUnknown, "look into the history, then use another key")
        case .storageFull: .storageFull(retryAfter: Int(clamping: refused.retryAfter / 1_000))
        case .overloaded:
            Problem(.overloaded, retryAfter: max(1, Int(clamping: refused.retryAfter / 1_000)))
        default: Problem(.invalidRequest, "it was refused with code \(refused.code.rawValue)")
        }
    }

    private static func payload(_ order: Order) throws(Problem) -> ByteBuffer {
        switch (order.text, order.payload) {
        case (let text?, nil): return ByteBuffer(string: text)
        case (nil, let payload?):
            guard let data = Data(base64Encoded: payload) else {
                throw Problem(.invalidRequest, "'payload' is not base64")
            }
            return ByteBuffer(bytes: data)
        default: throw Problem(.invalidRequest, "either 'text' or 'payload' has the message")
        }
    }

    /// What stands in the log as the device that it came from.
    static func device(of key: APIKeyInfo) throws -> DeviceID { try DeviceID("api-\(key.id)") }

    /// One outbox for each API key.
    static func producer(of key: APIKeyInfo) -> ProducerID {
        let hash = Array(SHA256.hash(data: Data("api-key/\(key.id)".utf8)))
        func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        return ProducerID(high: number(hash[0..<8]), low: number(hash[8..<16]))
    }

    // MARK: History

    private struct Message: Encodable {
        var offset: UInt64
        var kind: String
        var sender: String
        var device: String
        var time: UInt64
        /// In milliseconds since 1970; absent: it does not expire.
        var expiry: UInt64?
        var recipient: String?
        var target: UInt64?
        /// In base64.
        var payload: String
    }

    private struct Page: Encodable {
        var channel: String
        var epoch: String
        var messages: [Message]
        /// For the next page; absent on the last.
        var cursor: String?
    }

    /// The most entries of a page.
    static let maximumPage = 100
    /// Payload bytes of a page, beyond its first entry.
    private static let pageBytes = 1 << 20

    private func history(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .history)
        let channel = try context.channel("id")
        let limit = try request.query("limit", in: 1...Self.maximumPage, standard: 50)
        let cursor = try HistoryCursor.read(try request.query("cursor"))
        let order = try request.query("order") ?? cursor?.order.rawValue ?? HistoryCursor.Order.newest.rawValue
        guard let order = HistoryCursor.Order(rawValue: order) else {
            throw Problem(.invalidRequest, "'order' is newest or oldest")
        }
        guard cursor == nil || cursor?.order == order else {
            throw Problem(.notFound, "'cursor' is none that a page in this order gave")
        }
        let key = ChannelKey(tenant: caller.tenant, channel: channel)
        guard cursor == nil || cursor?.channel == ChannelTag(key) else {
            throw Problem(.notFound, "'cursor' is none that a page of this channel gave")
        }
        do {
            let page = try await page(key, limit: limit, order, cursor)
            return .json(page)
        } catch let error as StoreError {
            throw Problem(readingChannel: error)
        }
    }

    private func page(
        _ key: ChannelKey, limit: Int, _ order: HistoryCursor.Order, _ cursor: HistoryCursor?
    ) async throws -> Page {
        let store = try server.openStore()
        var range = LogRange(
            after: 0, upTo: nil, direction: order == .newest ? .older : .newer, maximumEntries: limit,
            maximumBytes: Self.pageBytes)
        switch order {
        case .newest: range.upTo = cursor?.offset
        case .oldest: range.after = cursor?.offset ?? 0
        }
        let page = try await store.page(key, range, now: time())
        if let cursor, cursor.epoch != page.epoch { throw Problem(.cursorExpired) }
        var messages: [Message] = []
        for case .entry(let entry) in page.items { messages.append(try await message(entry, key, store)) }
        if order == .newest { messages.reverse() }
        return Page(
            channel: key.channel.description, epoch: "\(page.epoch)", messages: messages,
            cursor: HistoryCursor.next(behind: page, of: key, order)?.text)
    }

    private func message(_ entry: Entry, _ key: ChannelKey, _ store: any MessageStore) async throws -> Message {
        var payload = entry.payload
        var left = entry.following
        while left > 0 {
            guard
                let part = try await store.payload(
                    of: entry.offset, in: key, from: UInt64(payload.readableBytes), maximumBytes: Self.pageBytes),
                part.readableBytes > 0
            else { throw Problem(.unavailable, "it was removed meanwhile", retryAfter: 1) }
            payload.writeImmutableBuffer(part)
            left -= min(left, UInt64(part.readableBytes))
        }
        return Message(
            offset: entry.offset, kind: "\(entry.kind)", sender: entry.sender.description,
            device: entry.device.description, time: entry.time, expiry: entry.expiry == 0 ? nil : entry.expiry,
            recipient: entry.recipient?.description, target: entry.target,
            payload: Data(payload.readableBytesView).base64EncodedString())
    }
}

extension ChannelID {
    fileprivate var isInbox: Bool { if case .user = self { true } else { false } }
}
