import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// How a client says up to where its user read, against a service in memory.
@Suite("Read places", .timeLimit(.minutes(1)))
struct ReadPlaceTests {
    private func place(_ offset: Offset) -> Position { Position(epoch: FakeService.epoch, offset: offset) }

    @Test("a place is said again where the service went a part of the way, and no more once it is there")
    func partOfTheWay() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let bob = ChannelID.user(try UserID("bob"))
        let alice = try UserID("alice")
        func said(_ conversation: ChannelID, _ offset: Offset) -> Int {
            let mark = Frame.read(
                ReadMark(conversation: conversation, position: place(offset), isPrivate: false))
            return harness.service.state.withLock { state in state.frames.count { $0 == mark } }
        }
        func reached(_ offset: Offset, of user: UserID) {
            harness.service.send(
                .receipt(Receipt(conversation: bob, user: user, kind: .read, position: place(offset))))
        }
        try await client.markRead(.user("bob"), upTo: place(9))
        while said(bob, 9) != 1 { await Task.yield() }
        // How far the other side came says nothing about this one.
        reached(3, of: try UserID("bob"))
        for (offset, count) in [(4, 2), (7, 3)] as [(Offset, Int)] {
            reached(offset, of: alice)
            while said(bob, 9) != count { await Task.yield() }
        }
        let receipts = client.receipts
        reached(9, of: alice)
        for await receipt in receipts where receipt.position == place(9) { break }
        // Another connection says what is not stored, and this is.
        await harness.lose()
        try await client.connect()
        try await client.markRead(.room("a"), upTo: place(5))
        while said(.room(try RoomID("a")), 5) != 1 { await Task.yield() }
        #expect(said(bob, 9) == 3)
        await client.disconnect()
    }
}
