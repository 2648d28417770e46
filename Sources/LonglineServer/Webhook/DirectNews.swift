import LonglineStore
import LonglineWire

/// Where the news of direct messages to one user stand in the user's inbox, so that a confirmation finds those that it covers without
/// a look at the others. A room's are found by its name.
///
/// In the order of their places, of one life of the inbox after the other: what is new comes last, as a rule, and what is read
/// lies first.
struct DirectNews {
    private struct Place {
        let position: Position
        let conversation: ChannelID
    }

    private var places: [Place] = []

    private static func isDirect(_ news: PendingNotification) -> Bool { news.channel == .user(news.key.user) }

    private func firstIndex(from position: Position) -> Int {
        places.partitionIndex {
            ($0.position.epoch, $0.position.offset) >= (position.epoch, position.offset)
        }
    }

    /// Takes note of news, if they are of direct messages: one for each conversation.
    mutating func insert(_ news: PendingNotification) {
        guard Self.isDirect(news) else { return }
        places.insert(
            Place(position: news.position, conversation: news.key.conversation), at: firstIndex(from: news.position))
    }

    /// Forgets news, if they are noted.
    mutating func remove(_ news: PendingNotification) {
        guard Self.isDirect(news) else { return }
        var index = firstIndex(from: news.position)
        while index < places.count, places[index].position == news.position {
            if places[index].conversation == news.key.conversation {
                places.remove(at: index)
                return
            }
            index += 1
        }
    }

    /// The conversations whose news a confirmation may cover. Of direct messages they are those that it does, which are taken out.
    /// - Parameter only: looks at this conversation; nil: at all.
    mutating func covered(
        by position: Position, of channel: ChannelID, of user: UserID, only: ChannelID?
    ) -> [ChannelID] {
        // A room's news are in the conversation itself, those of all direct ones in the inbox.
        if let only { return [only] }
        return channel == .user(user) ? [channel] + take(through: position) : [channel]
    }

    /// Takes out what a device has that has the inbox's entries up to a position.
    /// - Returns: the conversations.
    private mutating func take(through position: Position) -> [ChannelID] {
        let start = firstIndex(from: Position(epoch: position.epoch, offset: 0))
        let end = places.partitionIndex {
            ($0.position.epoch, $0.position.offset) > (position.epoch, position.offset)
        }
        let conversations = places[start..<end].map(\.conversation)
        places.removeSubrange(start..<end)
        return conversations
    }
}
