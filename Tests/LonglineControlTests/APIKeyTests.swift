import Foundation
import GRDB
import HTTPTypes
import LonglineServer
import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineControl

@Suite("API keys", .timeLimit(.minutes(2))) struct APIKeyTests {
    /// A route for each right, with a body that it takes.
    private static let calls: [(APIKeyRight, HTTPRequest.Method, String, String?)] = [
        (.tokens, .post, "/v1/tokens", #"{"user":"ann","device":"phone"}"#),
        (.revoke, .post, "/v1/tokens/revoke", #"{"user":"ann"}"#),
        (.erase, .delete, "/v1/users/zoe", nil),
        (.publish, .post, "/v1/channels/all%2Fnews/messages", #"{"sender":"app","text":"x"}"#),
        (.history, .get, "/v1/channels/all%2Fnews/messages", nil),
        (.retract, .delete, "/v1/channels/all%2Fnews/messages/1?epoch=1", nil),
        (.rooms, .put, "/v1/rooms/hall/members/ann", nil), (.rooms, .get, "/v1/rooms/hall/members", nil),
        (.rooms, .delete, "/v1/rooms/hall/members/ann", nil), (.rooms, .delete, "/v1/rooms/hall", nil),
        (.operate, .get, "/v1/users/ann/sessions", nil), (.operate, .delete, "/v1/users/ann/sessions", nil),
    ]

    @Test("allow what their rights say, and nothing else")
    func rights() async throws {
        try await withControl { service in
            for right in APIKeyRight.allCases {
                let key = try await service.key([right])
                for (needed, method, path, body) in Self.calls {
                    let answer = try await service.ask(
                        method, path, key: key, json: body, headers: [.idempotencyKey: right.rawValue])
                    // There is no such message.
                    let isDone = answer.status < 300 || needed == .retract && answer.status == 404
                    #expect(isDone == (needed == right), "\(right) \(method) \(path): \(answer.status)")
                    if needed != right { #expect(answer.problem == "forbidden") }
                }
            }
        }
    }

    @Test("that are wrong in any way get one answer, before anything of the request is looked at")
    func unauthorized() async throws {
        try await withControl { service in
            let revoked = try await service.keys.create(
                tenant: ControlService.tenant, rights: Set(APIKeyRight.allCases), label: "")
            #expect(try await service.keys.revoke(id: revoked.info.id))
            #expect(try await !service.keys.revoke(id: revoked.info.id))
            let good = try await service.appKey()
            let id = try #require(try await service.keys.find(good)).id
            for (_, method, path, _) in Self.calls {
                for key in [
                    nil, "", "x", id, revoked.key, good.dropLast() + "_", good + "A",
                    String(repeating: "k", count: 5_000),
                ] {
                    // Neither the path nor the body is what it should be.
                    let broken = path.replacing("/ann", with: "/%ff").replacing("all%2Fnews", with: "%ff")
                    let answer = try await service.ask(method, broken, key: key.map { String($0) }, json: "{")
                    #expect(answer.status == 401, "\(method) \(path)")
                    #expect(answer.headers[.wwwAuthenticate] == "Bearer")
                    #expect(try Set(answer.object().keys) == ["type", "title", "status", "request_id"])
                }
            }
            let node = service.control.nodeID
            #expect(try await service.ask(.post, "/v1/nodes/\(node)/drain", json: "{").status == 401)
            #expect(try await service.ask(.get, "/v1/access", key: good, on: .service).status == 401)
        }
    }

    @Test("reach nothing of another tenant")
    func tenants() async throws {
        try await withControl { service in
            let mine = try await service.appKey()
            let other = try TenantID("other")
            let theirs = try await service.key([.tokens, .publish, .history, .rooms, .operate], tenant: other)
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: mine).status == 200)
            let history = "/v1/channels/room%2Fhall/messages"
            #expect(try await service.ask(.get, history, key: theirs).status == 404)
            let published = try await service.ask(
                .post, history, key: theirs, json: #"{"sender":"ann","text":"x"}"#, headers: [.idempotencyKey: "1"])
            #expect(published.status == 404)
            #expect(try await service.ask(.get, "/v1/users/ann/sessions?tenant=acme", key: theirs).status == 403)
            // A node is nobody's.
            let drain = try await service.ask(.post, "/v1/nodes/\(service.control.nodeID)/drain", key: theirs)
            #expect(drain.status == 403)
            #expect(!service.server.isDraining)
            let unserved = try await service.key([.tokens], tenant: try TenantID("elsewhere"))
            let refused = try await service.ask(
                .post, "/v1/tokens", key: unserved, json: #"{"user":"ann","device":"phone"}"#)
            #expect(refused.problem == "tenant-not-served")
        }
    }

    @Test("are kept as hashes only, in a file that nobody else may read")
    func stored() async throws {
        let folder = try TemporaryFolder()
        let database = try ControlDatabase(path: folder.path + "/control.db")
        let keys = APIKeys(database)
        let (key, info) = try await keys.create(tenant: ControlService.tenant, rights: [.publish], label: "shop")
        #expect(key.hasPrefix("llk_") && key.utf8.count == 47)
        #expect(try await keys.list() == [info])
        // Another process that has the folder.
        let other = APIKeys(try ControlDatabase(path: folder.path + "/control.db"))
        #expect(try await other.find(key) == info)
        _ = try await database.pool.writeWithoutTransaction { try $0.checkpoint(.truncate) }
        for file in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let path = folder.path + "/" + file
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? NSNumber
            #expect(mode?.intValue == 0o600, "\(file)")
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            #expect(bytes.range(of: Data(key.dropFirst(4).utf8)) == nil, "\(file)")
        }
        #expect(try await keys.revoke(id: info.id))
        #expect(try await other.find(key) == nil)
        await #expect(throws: ControlError.self) { try await keys.create(tenant: nil, rights: [.publish], label: "") }
        await #expect(throws: ControlError.self) {
            try await keys.create(tenant: ControlService.tenant, rights: [], label: "")
        }
    }

    @Test("are compared whole, wherever they differ")
    func compared() {
        let hash = APIKeySecret.hash("one")
        for index in hash.indices {
            var other = hash
            other[index] ^= 1
            #expect(!APIKeySecret.areEqual(hash, other))
        }
        #expect(APIKeySecret.areEqual(hash, hash) && !APIKeySecret.areEqual(hash, []))
    }
}
