import LonglineWire
import Testing

@testable import LonglineStore

/// What most tests do with rooms.
extension Rooms {
    /// Joins; nil when there is no such room, an error for any other refusal.
    @discardableResult
    func join(_ room: RoomID, by device: DeviceKey, create: Bool) async throws -> Position? {
        switch try await change(room, .join(create: create), by: device) {
        case .done(let receipt): return receipt.position
        case .refused(.unknownChannel): return nil
        case .refused(let code): throw Refusal(code: code)
        }
    }

    /// Leaves; nil when the user is no member.
    @discardableResult
    func leave(_ room: RoomID, by device: DeviceKey) async throws -> Position? {
        try await change(room, .leave, by: device).receipt?.position
    }

    /// What became of an owner's request.
    @discardableResult
    func act(_ room: RoomID, _ action: RoomAction, by device: DeviceKey) async throws -> RoomOutcome {
        try await change(room, .act(action), by: device)
    }

    /// Everybody who is in a room, read in pages of two.
    func members(of room: RoomID, in tenant: TenantID) async throws -> [UserID] {
        try await roles(of: room, in: tenant).map(\.user)
    }

    /// Everybody who is in a room and what they are there, read in pages of two.
    func roles(of room: RoomID, in tenant: TenantID) async throws -> [RoomMember] {
        var all: [RoomMember] = []
        while let page = try await members(of: room, in: tenant, for: nil, after: all.last?.user, limit: 2) {
            all += page.members
            if !page.more {
                #expect(page.total == all.count)
                break
            }
            #expect(page.members.count == 2)
        }
        return all
    }
}

struct Refusal: Error {
    var code: RefusalCode
}
