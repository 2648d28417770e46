import LonglineClient
import LonglineTestKit
import LonglineWire
import Testing

@testable import longline

@Suite("longline conversations", .timeLimit(.minutes(2)))
struct ConversationsCommandTests {
    @Test("A receipt of another conversation, kind or log is none of the mark that was set")
    func receipts() throws {
        let place = Position(epoch: 7, offset: 5)
        let (ann, bob, room) = (try UserID("ann"), try UserID("bob"), try RoomID("bob"))
        func confirms(
            _ conversation: ChannelID, _ kind: ReceiptKind = .read, epoch: UInt64 = 7, offset: UInt64 = 5
        ) -> Bool {
            let receipt = Receipt(
                conversation: conversation, user: ann, kind: kind, position: Position(epoch: epoch, offset: offset))
            return ConversationsCommand.mayConfirm(receipt, .user(bob), upTo: place)
        }
        #expect(confirms(.user(bob)) && confirms(.user(bob), offset: 6))
        #expect(!confirms(.user(ann)) && !confirms(.room(room)))
        #expect(!confirms(.user(bob), .delivered))
        #expect(!confirms(.user(bob), epoch: 6) && !confirms(.user(bob), offset: 4))
    }

    @Test("Somebody else's receipt of the same place ends no wait for one's own")
    func othersReceipt() async throws {
        let place = Position(epoch: 7, offset: 5)
        let room = try RoomID("tea")
        let (receipts, continuation) = AsyncStream.makeStream(of: Receipt.self)
        for user in [try UserID("bob"), try UserID("carol"), try UserID("ann")] {
            continuation.yield(Receipt(conversation: .room(room), user: user, kind: .read, position: place))
        }
        continuation.finish()
        // As the list tells: bob's and carol's were there before ann's was stored.
        var asked = 0
        func list() -> Int? {
            asked += 1
            return asked == 3 ? asked : nil
        }
        let confirmed = try await ConversationsCommand.confirmed(.room(room), upTo: place, by: receipts) { list() }
        #expect(confirmed == 3)
        let (none, end) = AsyncStream.makeStream(of: Receipt.self)
        end.finish()
        let unconfirmed = try await ConversationsCommand.confirmed(.room(room), upTo: place, by: none) { list() }
        #expect(unconfirmed == nil && asked == 3)
    }

    @Test("A conversation that was marked as read is read when the command ends, in a room where others read too")
    func read() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let bob = place + (try await token(folder, "bob", "phone"))
            let joined = try await ToolProcess.run(["room", "join", "tea"] + bob)
            #expect(joined.status == 0, "\(joined.output)")
            for destination in ["user/bob", "room/tea"] {
                let sent = try await ToolProcess.run(["send", "--to", destination, "hello"] + ann)
                #expect(sent.status == 0, "\(sent.output)")
            }
            for (conversation, whose) in [("room/tea", ann), ("room/tea", bob), ("user/ann", bob)] {
                let marked = try await ToolProcess.run(["conversations", "--read", conversation] + whose)
                #expect(marked.status == 0, "\(marked.output)")
            }
            let listed = try await ToolProcess.run(["conversations"] + bob)
            #expect(listed.status == 0 && listed.output.split(separator: "\n").count == 2, "\(listed.output)")
            #expect(!listed.output.contains("unread"), "\(listed.output)")
            // There is nothing to wait for.
            let again = try await ToolProcess.run(["conversations", "--read", "user/ann", "--limit", "2"] + bob)
            #expect(again.status == 0 && !again.output.contains("unread"), "\(again.output)")
        }
    }
}
