import LonglineWire
import Testing

@testable import LonglineSession

@Suite("Turns of reads")
struct ReadTurnsTests {
    private func rooms(_ count: Int, _ prefix: String) -> [ChannelID] {
        (0..<count).map { .room(Fixture.name("\(prefix)\($0)")) }
    }

    @Test("The most urgent channel is read first, and each urgency in the order in which it asked")
    func order() {
        var turns = ReadTurns(limit: 1)
        let (bulk, chat, control) = (rooms(2, "b"), rooms(2, "c"), rooms(1, "x"))
        for channel in bulk { turns.append(channel, .bulk) }
        for channel in chat { turns.append(channel, .chat) }
        for channel in control { turns.append(channel, .control) }
        for expected in control + chat + bulk {
            #expect(turns.next() == expected)
            #expect(turns.next() == nil, "one at a time")
            turns.ended(expected)
        }
    }

    @Test("Bulk leaves half of the reads to others")
    func places() {
        var turns = ReadTurns(limit: 4)
        let (bulk, chat) = (rooms(4, "b"), rooms(1, "c"))
        for channel in bulk { turns.append(channel, .bulk) }
        #expect(turns.next() == bulk[0])
        #expect(turns.next() == bulk[1])
        #expect(turns.next() == nil)
        turns.append(chat[0], .chat)
        #expect(turns.next() == chat[0])
        turns.ended(bulk[0])
        #expect(turns.next() == bulk[2])
    }

    @Test("Bulk gets its turn while chat never ends")
    func starvation() {
        var turns = ReadTurns(limit: 2)
        let bulk = rooms(3, "b")
        for channel in bulk { turns.append(channel, .bulk) }
        let chat = rooms(2, "c")
        for channel in chat { turns.append(channel, .chat) }
        var order: [ChannelID] = []
        for _ in 0..<40 {
            guard let next = turns.next() else { break }
            turns.ended(next)
            order.append(next)
            if chat.contains(next) { turns.append(next, .chat) }
        }
        #expect(order.prefix(8).allSatisfy(chat.contains))
        #expect(order.filter(bulk.contains) == bulk)
        #expect(order.firstIndex(of: bulk[1]) == 17)
    }
}
