import LonglineHTTP
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1

extension WebhookDispatcher {
    /// What became of one request.
    enum Outcome {
        case told
        case muted
        case expired
        /// One of the user's devices has it.
        case confirmed
        /// What it is about was taken back.
        case retracted
        /// It is from a room, and not of the user's stay there.
        case notEntitled
        /// The endpoint will not take it, however often it is sent.
        case rejected(UInt)
        /// `after`: the endpoint's own wish, in milliseconds.
        case failed(String, after: UInt64)
        /// Not the endpoint's fault.
        case postponed(String)

        var end: WebhookOutlets.End {
            switch self {
            // Who rejects something is not down.
            case .told, .rejected: .answered
            case .muted, .expired, .confirmed, .retracted, .notEntitled, .postponed: .withdrawn
            case .failed: .failed
            }
        }
    }

    /// Tells one, unless that has no object any more.
    func outcome(of notification: PendingNotification, _ endpoint: Endpoint) async -> Outcome {
        let now = clock.wall()
        let settings = endpoint.settings
        guard !notification.isOver(at: now),
            clock.steady() < notification.since + settings.maximumAge.wholeMilliseconds
        else { return .expired }
        // It was left by a process whose endpoint wanted it: this one would take it for news.
        guard !notification.isCancel || settings.tellsCancels else { return .expired }
        let key = notification.key
        var notification = notification
        do {
            // What takes a push back is told of a conversation that was muted since as well.
            if !notification.isCancel {
                if try await muting.isMuted(key.user, key.conversation, in: key.tenant) { return .muted }
                if try await isConfirmed(notification) { return .confirmed }
                let isLastOver = notification.isLastOver(at: now)
                let absence = try await absence(of: notification, now: now)
                if absence == .notEntitled { return .notEntitled }
                if isLastOver || absence == .retracted {
                    guard let others = notification.withoutLast else { return isLastOver ? .expired : .retracted }
                    notification = others
                }
            }
        } catch {
            return .postponed("whether it is muted, was confirmed, or was taken back, is not known: \(error)")
        }
        do {
            let body = try WebhookRequest.body(notification)
            let headers = WebhookRequest.headers(body, key: settings.key, time: now)
            let response = try await endpoint.client.post(
                ByteBuffer(bytes: body), headers: headers, within: settings.deadline)
            return Outcome(response, now: clock.wall())
        } catch is CancellationError {
            return .postponed("the server stops")
        } catch {
            return .failed("\(error)", after: 0)
        }
    }

    /// Whether a device has the news. A session on another event loop may have confirmed them before they were noted here: that was
    /// told to nobody but the cursors.
    private func isConfirmed(_ notification: PendingNotification) async throws(StoreError) -> Bool {
        let (key, channel) = (notification.key, notification.channel)
        // In this order: what is written meanwhile, the store has then.
        let place = ChannelPosition(channel: channel, position: notification.position)
        if cursors.covers(place, of: UserKey(key)) { return true }
        let known = try await store.confirmed(by: key.user, in: ChannelKey(tenant: key.tenant, channel: channel))
        return known.map { notification.isCovered(by: $0, of: channel) } ?? false
    }

    /// Why the last of the news is not for the user any more, or never was; nil when it is, or is only over. Members are looked up a
    /// moment after a message: who joined meanwhile is one of them.
    private func absence(of notification: PendingNotification, now: UInt64) async throws(StoreError) -> SkipReason? {
        let place = notification.position
        guard place.offset > 0 else { return nil }
        let isRoom = if case .room = notification.channel { true } else { false }
        let range = LogRange(
            after: place.offset - 1, upTo: place.offset, direction: .newer, maximumEntries: 1, maximumBytes: 1,
            reader: isRoom ? notification.key.user : nil)
        let page: LogPage
        do {
            page = try await store.page(
                ChannelKey(tenant: notification.key.tenant, channel: notification.channel), range, now: now)
        } catch  where error.code == .unknownChannel {
            return .retracted
        }
        guard page.epoch == place.epoch else { return nil }
        if isRoom {
            guard let stay = page.stay, stay.after < place.offset, place.offset <= stay.upTo ?? .max else {
                return .notEntitled
            }
        }
        guard case .skip(let skip)? = page.items.first, skip.reason == .retracted else { return nil }
        return .retracted
    }
}

extension WebhookDispatcher.Outcome {
    /// - Parameter now: by the wall clock, in milliseconds since 1970.
    init(_ response: HTTPConnection.Response, now: UInt64) {
        switch response.status {
        case 200..<300: self = .told
        // Timed out, too early, too many: the request itself is good.
        case 400..<500 where ![408, 425, 429].contains(response.status): self = .rejected(response.status)
        default:
            let seconds = Self.retryAfter(response.headers, now: now)
            self = .failed("status \(response.status)", after: min(seconds, WebhookSettings.longestRetryAfter) * 1_000)
        }
    }

    /// Seconds, or a date: by the endpoint's clock, where it says what that has.
    private static func retryAfter(_ headers: HTTPHeaders, now: UInt64) -> UInt64 {
        guard let text = headers.first(name: "retry-after") else { return 0 }
        if let seconds = UInt64(text) { return seconds }
        guard let date = HTTPDate.seconds(text) else { return 0 }
        let base = headers.first(name: "date").flatMap { HTTPDate.seconds($0) } ?? now / 1_000
        return date - min(date, base)
    }
}
