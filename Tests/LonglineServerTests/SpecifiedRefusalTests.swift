import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// Answers of docs/protocol.md section 24 that need a whole server, code by code.
@Suite("Specified refusals", .timeLimit(.minutes(1)))
struct SpecifiedRefusalTests {
    private func closeCode(_ server: TestServer, _ credential: Credential) async throws -> CloseCode {
        let device = try await server.device("ann")
        try await device.send([(device.connectFrame(credential), .control)])
        return try await device.closed()
    }

    @Test func revokedAndForeignCredentials() async throws {
        try await withServer { server in
            // The fixture serves every tenant; a refresh names the session's.
            let device = try await server.connected("ann")
            let foreign = try await server.issuer.token("ann", "phone", tenant: try TenantID("rival"))
            try await device.send([(.refresh(Refresh(token: foreign)), .control)])
            #expect(try await device.closed() == .forbidden)
            let other = try await server.connected("ann")
            let stranger = try await server.issuer.token("bob", "phone")
            try await other.send([(.refresh(Refresh(token: stranger)), .control)])
            #expect(try await other.closed() == .forbidden)

            let token = Credential.token(try await server.issuer.token("ann", "phone"))
            let ticket = Credential.ticket(try #require(other.ticket).ticket)
            try await server.runtime.revoke(.user(UserKey(tenant: TokenIssuer.tenant, user: ann)))
            for credential in [token, ticket] {
                #expect(try await closeCode(server, credential) == .credentialRevoked)
            }
        }
    }

    @Test func roomAnswers() async throws {
        var limits = StoreLimits()
        limits.roomMembers = 2
        limits.roomsWhenAdded = 1
        try await withServer(store: InMemoryStore(limits: limits)) { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            func act(_ device: TestDevice, _ room: String, _ action: RoomAction, _ number: UInt64) async throws
                -> RefusalCode?
            {
                let command = RoomCommand(request: number, room: try RoomID(room), action: action)
                try await device.send([(.room(command), .control)])
                return try await device.next { frame in
                    if case .roomAnswer(let answer) = frame, answer.request == number { answer } else { nil }
                }.refusal
            }
            for (number, room) in ["hall", "den"].enumerated() {
                #expect(try await owner.request(try RoomID(room), number: UInt64(number) + 1).refusal == nil)
            }
            #expect(try await act(owner, "hall", .add(bob), 3) == nil)
            #expect(try await act(member, "hall", .setPublishing(.owners), 1) == .forbidden)
            let carol = try UserID("carol")
            #expect(try await act(owner, "hall", .setRole(.owner, of: carol), 4) == .unknownRecipient)
            #expect(try await act(owner, "hall", .add(carol), 5) == .roomFull)
            #expect(try await act(owner, "den", .add(bob), 6) == .limitReached)
            // The sessions go on.
            #expect(try await owner.publish("still here", to: .room(try RoomID("hall"))).isPublished)
        }
    }
}

extension PublishOutcome {
    fileprivate var isPublished: Bool { if case .published = self { true } else { false } }
}
