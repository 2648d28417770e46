import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

@Suite(.timeLimit(.minutes(1))) struct HistoryTests {
    private func texts(_ frames: [Frame]) -> [String] {
        frames.compactMap { frame in
            switch frame {
            case .deliver(let deliver):
                deliver.entry.kind == .message ? String(buffer: deliver.entry.payload) : "<\(deliver.entry.kind)>"
            case .skip(let skip): "<\(skip.reason)>"
            default: nil
            }
        }
    }

    @Test("an inbox is paged back to its beginning and forth to its end, also by a device that was never there before")
    func bothWays() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            for index in 0..<25 { try await phone.message("m\(index)", to: bob) }
            let other = try await server.connected("bob", "new")
            var back: [String] = []
            var from = FrameLimits.maximumNumber
            var pages = 0
            while true {
                let page = try await other.history(.user(bob), from: from, limit: 10)
                back = texts(page.items) + back
                from = page.head.start + 1
                pages += 1
                if !page.head.more { break }
            }
            #expect(back == (0..<25).map { "m\($0)" } && pages == 3)
            var forth: [String] = []
            var head = try await other.history(.user(bob), from: 0, .newer, limit: 10)
            forth += texts(head.items)
            while head.head.more {
                head = try await other.history(
                    .user(bob), epoch: head.head.epoch, from: head.head.end, .newer, limit: 10)
                forth += texts(head.items)
            }
            #expect(forth == back)
            // What comes live comes all the same, once.
            for index in 0..<25 { #expect(try await other.text(.user(bob)) == "m\(index)") }
            #expect(other.untaken(.user(bob)).isEmpty)
            #expect(await server.runtime.statistics().historyPages == 6)
        }
    }

    @Test("a member of a room sees its stay and nothing else; a stranger is told that there is no such channel")
    func entitlement() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(hall, number: 1)
            try await owner.publish("before", to: .room(hall))
            let guest = try await server.connected("bob")
            #expect(try await guest.history(.room(hall)).head.refusal == .unknownChannel)
            _ = try await guest.request(hall, number: 1)
            try await owner.publish("during", to: .room(hall))
            #expect(try await guest.history(.room(hall)).items.count == 3)
            _ = try await guest.request(hall, number: 2, leave: true)
            try await owner.publish("after", to: .room(hall))
            let page = try await guest.history(.room(hall))
            #expect(texts(page.items) == ["<notEntitled>", "<joined>", "during", "<left>"])
            #expect(!page.head.more)
            let all = try await owner.history(.room(hall))
            #expect(texts(all.items) == ["<joined>", "before", "<joined>", "during", "<left>", "after"])
            // A stay that begins anew is all there is from then on.
            _ = try await guest.request(hall, number: 3)
            #expect(texts(try await guest.history(.room(hall)).items) == ["<notEntitled>", "<joined>"])
            #expect(try await guest.history(.user(ann)).head.refusal == .unknownChannel)
        }
    }

    @Test("who was removed reads nothing behind that, also before the session is told")
    func untoldRemoval() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(hall, number: 1)
            let guest = try await server.connected("bob")
            _ = try await guest.request(hall, number: 1)
            try await owner.publish("during", to: .room(hall))
            #expect(try await guest.text(.room(hall)) == "during")
            // In the store only: no loop hears of it.
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: owner.device)
            _ = try await server.store.change(hall, .act(.remove(bob)), by: device)
            for id in 1...3 as ClosedRange<PublishID> {
                let publish = Publish(
                    id: id, tag: id, after: id - 1, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "after"))
                _ = await server.store.append([
                    AppendRequest(
                        device: device, producer: ProducerID(high: 9, low: 9), channel: .room(hall), publish: publish)
                ])
            }
            let page = try await guest.history(.room(hall), limit: 2)
            #expect(texts(page.items) == ["during", "<left>"])
            let on = try await guest.history(.room(hall), from: page.head.end + 1, .newer)
            #expect(on.items.isEmpty && !on.head.more)
        }
    }

    @Test("what was trimmed is named, and an epoch that is gone is refused with the present one")
    func trimmedAndReplaced() async throws {
        let store = InMemoryStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            for index in 0..<10 { try await phone.publish("m\(index)", to: .user(ann)) }
            let key = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann))
            _ = try await store.trim(key, keep: Retention(entries: 2))
            let page = try await phone.history(.user(ann))
            #expect(texts(page.items) == ["<trimmed>", "m8", "m9"] && !page.head.more)
            let refused = try await phone.history(.user(ann), epoch: page.head.epoch &+ 1).head
            #expect(refused.refusal == .epochChanged && refused.epoch == page.head.epoch)
            let beyond = try await phone.history(.user(ann), from: page.head.end + 1, .newer).head
            #expect(beyond.refusal == .invalidRange)
            #expect(await server.runtime.statistics().refusals[.epochChanged] == 1)
        }
    }

    @Test("a page ends by its bytes, and says that there is more")
    func bytes() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let text = String(repeating: "x", count: 15_000)
            for _ in 0..<10 { try await phone.publish(text, to: .user(ann)) }
            let page = try await phone.history(.user(ann))
            #expect(page.items.count == 4 && page.head.more)
        }
    }

    @Test("a store that can't read refuses the page for now, and the session goes on")
    func failingStore() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            try await phone.publish("m", to: .user(ann))
            #expect(try await phone.text(.user(ann)) == "m")
            store.set { $0.reads = StoreError(.unavailable, message: "broken") }
            let refused = try await phone.history(.user(ann)).head
            #expect(refused.refusal == .overloaded && refused.retryAfter > 0)
            store.set { $0.reads = nil }
            #expect(texts(try await phone.history(.user(ann)).items) == ["m"])
        }
    }
}
