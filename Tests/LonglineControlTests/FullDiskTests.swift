import Foundation
import GRDB
import HTTPTypes
import LonglineWire
import Testing

@testable import LonglineControl
@testable import LonglineServer

@Suite("A full disk", .timeLimit(.minutes(2))) struct FullDiskTests {
    /// Lets the control database grow no more.
    /// - Parameter table: what an update of it needs is more than what room is left.
    private func fill(_ service: ControlService, atUpdatesOf table: String? = nil) async throws {
        try await service.database.pool.writeWithoutTransaction { db in
            if let table {
                try db.execute(
                    sql: """
                        CREATE TRIGGER full BEFORE UPDATE ON \(table) BEGIN
                            INSERT INTO filler VALUES (zeroblob(100000)); END;
                        CREATE TABLE filler (bytes BLOB);
                        """)
            }
            let pages = try Int.fetchOne(db, sql: "PRAGMA page_count") ?? 0
            try db.execute(sql: "PRAGMA max_page_count = \(pages)")
        }
    }

    /// Asks again and again, until there is no room for the answer.
    private func askUntilFull(
        _ service: ControlService, _ path: String, key: String, json: (Int) -> String
    ) async throws -> ControlService.Answer {
        var number = 0
        while true {
            number += 1
            let answer = try await service.ask(
                .post, path, key: key, json: json(number), headers: [.idempotencyKey: "\(path)-\(number)"])
            guard (200..<300).contains(answer.status), number < 5_000 else { return answer }
        }
    }

    private func expectFull(_ answer: ControlService.Answer) {
        #expect(answer.status == 503 && answer.problem == "storage-full", "\(answer.status)")
        #expect(answer.headers[.retryAfter].flatMap { Int($0) } ?? 0 > 0)
        #expect(!String(decoding: answer.body, as: UTF8.self).contains("SQLite"))
    }

    @Test("is 503 with a time to wait where the control layer writes first, and there is room again afterwards")
    func controlDatabase() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let renewed = try await service.token("ann", key: key)
            try await fill(service)
            expectFull(
                try await askUntilFull(service, "/v1/channels/all%2Fnews/messages", key: key) {
                    #"{"sender":"app","text":"\#($0)"}"#
                })
            expectFull(
                try await askUntilFull(service, "/v1/tokens", key: key) {
                    #"{"user":"user-\#($0)","device":"phone","login":true}"#
                })
            let line = service.log.lines.last { $0.contains("problem=storage-full") }
            #expect(line?.hasPrefix("error request failed") == true)
            // What changes nothing is answered.
            #expect(try await service.ask(.get, "/v1/access", key: renewed, on: .service).status == 200)
            try await service.database.pool.writeWithoutTransaction {
                try $0.execute(sql: "PRAGMA max_page_count = 99999")
            }
            let again = try await service.ask(
                .post, "/v1/tokens", key: key, json: #"{"user":"zoe","device":"phone","login":true}"#)
            #expect(again.status == 201)
        }
    }

    @Test("renews tokens all the same")
    func renewal() async throws {
        let now = Mutable(UInt64(1_900_000_000_000))
        try await withControl({ $0.time = { now.value } }) { service in
            let key = try await service.appKey()
            let device = #"{"user":"ann","device":"phone","login":"#
            let login = try await service.ask(.post, "/v1/tokens", key: key, json: device + "true}")
            let epoch = try #require(try login.object()["login_epoch"] as? UInt64)
            try await fill(service, atUpdatesOf: "logins")
            now.value += 2 * 86_400_000
            let renewed = try await service.ask(.post, "/v1/tokens", key: key, json: device + "false}")
            #expect(renewed.status == 201)
            #expect(try renewed.object()["login_epoch"] as? UInt64 == epoch)
        }
    }

    @Test("answers what was done, though the result can't be kept")
    func result() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await fill(service, atUpdatesOf: "idempotency")
            var offsets: [UInt64?] = []
            for _ in 0..<2 {
                let answer = try await service.ask(
                    .post, "/v1/channels/all%2Fnews/messages", key: key, json: #"{"sender":"app","text":"hello"}"#,
                    headers: [.idempotencyKey: "once"])
                #expect(answer.status == 201)
                offsets.append(try answer.object()["offset"] as? UInt64)
            }
            #expect(offsets[0] != nil && offsets[0] == offsets[1], "it was entered once")
        }
    }

    @Test("makes no login that can't be kept, and then one for a key")
    func login() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await fill(service, atUpdatesOf: "idempotency")
            func issue() async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone","login":true}"#,
                    headers: [.idempotencyKey: "once"])
            }
            for _ in 0..<2 { expectFull(try await issue()) }
            let logins = try await service.database.pool.read {
                try Int.fetchOne($0, sql: "SELECT count(*) FROM logins")
            }
            #expect(logins == 0)
            try await service.database.pool.writeWithoutTransaction {
                try $0.execute(sql: "PRAGMA max_page_count = 99999")
            }
            let (first, again) = (try await issue(), try await issue())
            #expect(first.status == 201 && again.status == 201)
            for member in ["token_id", "login_epoch", "issued_at", "expires_at"] {
                #expect(try again.object()[member] as? NSObject == first.object()[member] as? NSObject, "\(member)")
            }
        }
    }

    @Test("is 503 with a time to wait where the store is what has no room")
    func store() async throws {
        try await withControl(maximumStore: 600 * 1_024) { service in
            let key = try await service.appKey()
            let text = String(repeating: "x", count: 8_000)
            expectFull(
                try await askUntilFull(service, "/v1/channels/all%2Fnews/messages", key: key) { _ in
                    #"{"sender":"app","text":"\#(text)"}"#
                })
            expectFull(
                try await askUntilFull(service, "/v1/tokens/revoke", key: key) {
                    #"{"token_id":"\#(String(repeating: "t", count: 100))\#($0)"}"#
                })
        }
    }
}
