import LonglineHTTP
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1

extension WebhookDispatcher {
    /// What became of one request.
    enum Outcome {
        /// What it was told with, which is less than what was to be where the last of it was over.
        case told(PendingNotification)
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
                guard let confirmed = try await confirmedPlace(before: notification) else { return .confirmed }
                let isLastOver = notification.isLastOver(at: now)
                let standing = try await standing(of: notification, behind: confirmed, now: now)
                if standing.absence == .notEntitled { return .notEntitled }
                notification.count = min(notification.count, standing.most)
                if isLastOver || standing.absence == .retracted {
                    guard let others = notification.withoutLast else { return isLastOver ? .expired : .retracted }
                    notification = others
                } else if notification.payload != nil {
                    notification.payload = try await lastText(of: notification, through: standing.end, now: now)
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
            return Outcome(response, to: notification, now: clock.wall())
        } catch is CancellationError {
            return .postponed("the server stops")
        } catch {
            return .failed("\(error)", after: 0)
        }
    }

    /// How far a device has the channel that the news are in. A session on another event loop may have confirmed them before they were
    /// noted here: that was told to nobody but the cursors.
    /// - Returns: nil: a device has the news.
    private func confirmedPlace(before notification: PendingNotification) async throws(StoreError) -> Offset? {
        let (key, channel) = (notification.key, notification.channel)
        // In this order: what is written meanwhile, the store has then.
        let place = ChannelPosition(channel: channel, position: notification.position)
        if cursors.covers(place, of: UserKey(key)) { return nil }
        let known = try await store.confirmed(by: key.user, in: ChannelKey(tenant: key.tenant, channel: channel))
        guard let known, known.epoch == notification.position.epoch else { return 0 }
        return notification.isCovered(by: known, of: channel) ? nil : known.offset
    }

    /// What the log says of news now.
    private struct Standing {
        /// Why the last of them is not for the user any more, or never was; nil when it is, or is only over.
        var absence: SkipReason?
        /// As many as there can be: members are told of what came within a second, and who joined in it of no more than came since; and
        /// others than the last may have been taken back, or be over.
        var most = UInt64.max
        /// The last entry that the user may read.
        var end: Offset = 0
    }

    /// Members are looked up a moment after a message: who joined meanwhile is one of them.
    /// - Parameter confirmed: what a device has of the channel.
    private func standing(
        of notification: PendingNotification, behind confirmed: Offset, now: UInt64
    ) async throws(StoreError) -> Standing {
        let place = notification.position
        var standing = Standing()
        guard place.offset > 0 else { return standing }
        let isRoom = if case .room = notification.channel { true } else { false }
        let range = LogRange(
            after: place.offset - 1, upTo: place.offset, direction: .newer, maximumEntries: 1, maximumBytes: 1,
            reader: isRoom ? notification.key.user : nil)
        let channel = ChannelKey(tenant: notification.key.tenant, channel: notification.channel)
        let page: LogPage
        do {
            page = try await store.page(channel, range, now: now)
        } catch  where error.code == .unknownChannel {
            standing.absence = .retracted
            return standing
        }
        guard page.epoch == place.epoch else { return standing }
        standing.end = page.head
        var after = confirmed
        if isRoom {
            // A stay begins with an entry that is no news.
            guard let stay = page.stay, stay.after + 1 < place.offset, place.offset <= stay.upTo ?? .max else {
                standing.absence = .notEntitled
                return standing
            }
            after = max(after, stay.after)
            standing.end = min(page.head, stay.upTo ?? .max)
        }
        if case .skip(let skip)? = page.items.first, skip.reason == .retracted { standing.absence = .retracted }
        // What is told in the place of a push is told under a place where nothing need be.
        guard notification.count > 1 || !isThere(notification, page) else { return standing }
        let left = try await store.countMessages(
            in: channel, after: after, upTo: place.offset,
            by: isRoom ? .allBut(notification.key.user) : .only(notification.sender),
            limit: Int(clamping: notification.count), now: now)
        // The last one counts still where it was taken back, or is over.
        let isLastCounted = standing.absence != .retracted && !notification.isLastOver(at: now)
        standing.most = UInt64(left) + (isLastCounted ? 0 : 1)
        if left == 0 { (standing.absence, standing.most) = (.retracted, 1) }
        return standing
    }

    private func isThere(_ notification: PendingNotification, _ page: LogPage) -> Bool {
        guard case .entry(let entry)? = page.items.first else { return false }
        return entry.kind.isNews && entry.sender == notification.sender
    }

    /// The text of the last of the news as its last edit has it, which may have been entered after the news were noted.
    /// - Parameter end: the last entry that the user may read.
    /// - Returns: nil where that is too large to go along.
    private func lastText(
        of notification: PendingNotification, through end: Offset, now: UInt64
    ) async throws(StoreError) -> ByteBuffer? {
        let channel = ChannelKey(tenant: notification.key.tenant, channel: notification.channel)
        let edit = try await store.lastEdit(of: notification.position.offset, in: channel, through: end, now: now)
        guard let edit, edit.sender == notification.sender else { return notification.payload }
        return edit.following == 0 ? edit.payload : nil
    }
}

extension WebhookDispatcher.Outcome {
    /// - Parameters:
    ///   - notification: as it was sent.
    ///   - now: by the wall clock, in milliseconds since 1970.
    init(_ response: HTTPConnection.Response, to notification: PendingNotification, now: UInt64) {
        switch response.status {
        case 200..<300: self = .told(notification)
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
