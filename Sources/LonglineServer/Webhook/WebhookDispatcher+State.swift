import LonglineStore
import LonglineWire

extension WebhookDispatcher {
    /// What is to be told, to whom it was told, and what is being found out.
    struct State {
        var queue: WebhookQueue
        var held: HeldNotifications
        /// What endpoints were told that take cancels, until a device has it.
        var told: HeldNotifications
        /// Those with messages that their members were not told of.
        var rooms: [ChannelKey: RoomNews] = [:]
        /// Those whose members are being looked up.
        var telling: [ChannelKey: RoomNews] = [:]
        /// Who was erased meanwhile: they may be among the members that were looked up before.
        var forgotten: Set<UserKey> = []
        /// Who is being erased: of them nothing is noted.
        var erasing: Set<UserKey> = []
        var outlets: WebhookOutlets
        var statistics = WebhookStatistics()

        mutating func forget(_ user: UserKey) {
            queue.forget(user)
            _ = held.take(user)
            _ = told.take(user)
        }

        /// Counts what became of a request, and decides whether the notification waits on.
        /// - Parameter now: by the steady clock, in milliseconds.
        mutating func note(
            _ outcome: Outcome, of taken: WebhookQueue.Taken, _ settings: WebhookSettings, now: UInt64
        ) {
            switch outcome {
            case .told(let sent):
                noteTold(taken, sent, settings, now: now)
            case .rejected:
                statistics.rejected += 1
                queue.giveUp(taken)
            case .muted:
                statistics.muted += 1
                queue.giveUp(taken)
            case .expired:
                statistics.expired += 1
                queue.giveUp(taken)
            case .confirmed, .retracted, .notEntitled:
                statistics.cancelled += 1
                queue.giveUp(taken)
            case .postponed:
                queue.postpone(taken, until: now + settings.backOff.wholeMilliseconds)
            case .failed(_, let after):
                statistics.failures += 1
                let wait = max(after, settings.wait(failures: taken.notification.failures))
                queue.failed(taken, until: now + wait)
            }
        }

        /// - Parameter sent: what was told of it.
        private mutating func noteTold(
            _ taken: WebhookQueue.Taken, _ sent: PendingNotification, _ settings: WebhookSettings, now: UInt64
        ) {
            let (wasRead, wasForgotten) = (queue.wasRead(taken), queue.wasForgotten(taken))
            let retraction = queue.retraction(of: taken)
            queue.told(taken)
            guard !taken.notification.isCancel else {
                statistics.cancelsSent += 1
                return
            }
            statistics.sent += 1
            guard settings.tellsCancels, !wasForgotten else { return }
            // A device got it while the request was under way.
            guard !wasRead else { return queue.cancel(sent.cancel(at: now)) }
            var news = sent
            news.payload = nil
            told.put(news)
            // What was shown since is to be seen no longer than what had been. Of what was found to be taken back nothing was shown.
            if let retraction, sent.position == taken.notification.position {
                retracted(news.position, of: news.key, isOutOfTouch: retraction == .outOfTouch, now: now)
            }
        }

        /// A message was taken back. A push that shows it gives way to one of the others, or is taken back where there are none.
        /// - Parameter isOutOfTouch: one of the two blocks the other: what is told anew would be a word that arrives.
        mutating func retracted(
            _ position: Position, of key: PendingNotification.Key, isOutOfTouch: Bool = false, now: UInt64
        ) {
            queue.retracted(position, of: key, isOutOfTouch ? .outOfTouch : .inTouch)
            guard let news = told.take(key, endingAt: position) else { return }
            if !isOutOfTouch, let others = news.others(at: now) { queue.put(others) }
            // Where there is something else to tell, that takes the push's place.
            queue.cancel(news.cancel(at: now))
        }

        /// As ``retracted(_:of:now:)``, of all that are told of a room.
        mutating func retracted(_ position: Position, in room: ChannelKey, now: UInt64) {
            for user in told.users(of: room).union(queue.usersBeingTold(of: room)) {
                let key = PendingNotification.Key(tenant: room.tenant, user: user, conversation: room.channel)
                retracted(position, of: key, now: now)
            }
        }
    }
}
