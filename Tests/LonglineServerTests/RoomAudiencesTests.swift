import LonglineStore
import LonglineWire
import Testing

@testable import LonglineServer

@Suite struct RoomAudiencesTests {
    @Test func countsRoomsByTenantAndForgetsEmptyOnes() throws {
        let audiences = RoomAudiences()
        let (acme, other) = (try TenantID("acme"), try TenantID("other"))
        let room = ChannelKey(tenant: acme, channel: .room(try RoomID("hall")))
        let same = ChannelKey(tenant: other, channel: .room(try RoomID("hall")))
        let inbox = ChannelKey(tenant: acme, channel: .user(try UserID("ann")))
        for _ in 0..<3 { audiences.add(1, to: room) }
        audiences.add(1, to: same)
        audiences.add(1, to: inbox)
        #expect(audiences.count(of: room) == 3 && audiences.count(of: same) == 1 && audiences.count(of: inbox) == 0)
        for _ in 0..<3 { audiences.add(-1, to: room) }
        audiences.add(-1, to: inbox)
        #expect(audiences.count(of: room) == 0 && audiences.count(of: same) == 1)
    }
}
