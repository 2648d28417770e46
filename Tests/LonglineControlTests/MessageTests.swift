import Foundation
import GRDB
import HTTPTypes
import Logging
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineControl

@Suite("Messages of an app server", .timeLimit(.minutes(2))) struct MessageTests {
    private func publish(
        _ service: ControlService, _ channel: String, _ text: String, id: String, key: String, sender: String = "app"
    ) async throws -> ControlService.Answer {
        try await service.ask(
            .post, "/v1/channels/\(channel)/messages", key: key, json: #"{"sender":"\#(sender)","text":"\#(text)"}"#,
            headers: [.idempotencyKey: id])
    }

    private func history(
        _ service: ControlService, _ channel: String, _ query: String = "", key: String
    ) async throws -> (texts: [String], cursor: String?) {
        let answer = try await service.ask(.get, "/v1/channels/\(channel)/messages\(query)", key: key)
        #expect(answer.status == 200)
        let page = try answer.object()
        let messages = try #require(page["messages"] as? [[String: Any]])
        let texts = messages.filter { $0["kind"] as? String == "message" }.compactMap { message in
            (message["payload"] as? String).flatMap { Data(base64Encoded: $0) }.map {
                String(decoding: $0, as: UTF8.self)
            }
        }
        return (texts, page["cursor"] as? String)
    }

    @Test("reach sessions at once, in rooms, as direct messages and to all")
    func live() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let client = try await service.client("ann", key: key)
            try await client.connect()
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
            // Whom it comes from is no member, and never connected.
            #expect(try await publish(service, "room:hall", "to the room", id: "1", key: key).status == 201)
            #expect(try await publish(service, "user%2Fann", "to ann", id: "2", key: key, sender: "bob").status == 201)
            #expect(try await publish(service, "all%2Fnews", "to all", id: "3", key: key).status == 201)
            let messages = await client.receive(4).filter { $0.kind == .message }
            #expect(Set(messages.map { String(buffer: $0.payload) }) == ["to the room", "to ann", "to all"])
            #expect(Set(messages.map(\.sender.description)) == ["app", "bob"])
            await client.disconnect()
        }
    }

    @Test("an idempotency key makes one entry, also of two at once, and after the process was killed in between")
    func once() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
            let first = try await publish(service, "room%2Fhall", "one", id: "k", key: key)
            #expect(first.status == 201)
            let again = try await publish(service, "room%2Fhall", "one", id: "k", key: key)
            #expect(again.status == 201 && again.body == first.body)
            let reused = try await publish(service, "room%2Fhall", "two", id: "k", key: key)
            #expect(reused.status == 422 && reused.problem == "idempotency-key-reused")
            #expect(try await publish(service, "all%2Fx", "one", id: "k", key: key).problem == "idempotency-key-reused")

            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<8 {
                    group.addTask { try await publish(service, "room%2Fhall", "many", id: "m", key: key).status }
                }
                return try await group.reduce(into: Set()) { $0.insert($1) }
            }
            #expect(statuses.isSubset(of: [201, 409]) && statuses.contains(201))

            // As if it had been entered, and its answer not been written down.
            try await service.database.pool.write { try $0.execute(sql: "UPDATE idempotency SET result = NULL") }
            let resumed = try await publish(service, "room%2Fhall", "one", id: "k", key: key)
            #expect(resumed.status == 201 && resumed.body == first.body)
            #expect(try await history(service, "room%2Fhall", key: key).texts == ["many", "one"])
        }
    }

    @Test("a key counts for 24 hours and one API key; a refused publish gives it back")
    func scope() async throws {
        let now = Mutex(WallClock.milliseconds())
        try await withControl({ $0.time = { now.withLock { $0 } } }) { service in
            let (key, other) = (try await service.appKey(), try await service.appKey())
            #expect(try await publish(service, "room%2Fhall", "one", id: "k", key: key).problem == "not-found")
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
            #expect(try await publish(service, "room%2Fhall", "one", id: "k", key: key).status == 201)
            #expect(try await publish(service, "room%2Fhall", "two", id: "k", key: other).status == 201)
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let time: @Sendable () -> UInt64 = { now.withLock { $0 } }
            let janitor = ControlJanitor(
                keys: IdempotencyKeys(service.database, time: time, logger: logger),
                logins: LoginEpochs(database: service.database), time: time, tokenLifetime: .seconds(3_600),
                logger: logger)
            var steadiness = ClockSteadiness()
            var instant = ContinuousClock.now
            /// So much later the clock says so, and the janitor has its turn.
            func turn(after passed: UInt64) async {
                now.withLock { $0 += passed }
                instant += .milliseconds(passed)
                await janitor.turn(&steadiness, at: instant)
            }
            let hour: UInt64 = 3_600 * 1_000
            await turn(after: 0)
            await turn(after: IdempotencyKeys.lifetime - hour)
            #expect(try await publish(service, "room%2Fhall", "one", id: "k", key: key).status == 201)
            await turn(after: 2 * hour)
            #expect(try await publish(service, "room%2Fhall", "three", id: "k", key: key).status == 201)
            #expect(try await history(service, "room%2Fhall", key: key).texts == ["three", "two", "one"])
        }
    }

    @Test("a key counts whatever the clock says meanwhile")
    func clockAhead() async throws {
        let now = Mutex(WallClock.milliseconds())
        try await withControl({ $0.time = { now.withLock { $0 } } }) { service in
            let key = try await service.appKey()
            let first = try await publish(service, "all%2Fnews", "one", id: "k", key: key)
            now.withLock { $0 += 365 * IdempotencyKeys.lifetime }
            let again = try await publish(service, "all%2Fnews", "one", id: "k", key: key)
            #expect(first.status == 201 && again.status == 201 && again.body == first.body)
            #expect(try await publish(service, "all%2Fnews", "two", id: "k", key: key).status == 422)
            #expect(try await history(service, "all%2Fnews", key: key).texts == ["one"])
        }
    }

    /// The process ended when it had begun, and before the store had it. Later ones went first.
    @Test(
        "what an earlier process began is entered once, unless the ledger doesn't remember so far back",
        arguments: [(1, 201), (PublishLedger.remembered + 1, 409)])
    func overtaken(later: Int, status: Int) async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let info = try #require(try await service.keys.find(key))
            let body = #"{"sender":"app","text":"one"}"#
            let digest = IdempotencyKeys.digest("POST /v1/channels/all/news/messages", ByteBuffer(string: body))
            try await service.database.pool.write { db in
                try db.execute(
                    sql: "INSERT INTO idempotency (api_key, key, request, created, number) VALUES (?, 'k', ?, ?, 7)",
                    arguments: [info.id, digest, Int64(WallClock.milliseconds())])
            }
            for number in 1...later {
                let outcome = try await service.server.publish(
                    ServicePublish(
                        tenant: try #require(info.tenant), channel: .all(try BroadcastID("news")),
                        sender: try UserID("app"),
                        device: try MessageRoutes.device(of: info), producer: MessageRoutes.producer(of: info),
                        id: PublishID(100 + number), tag: 1, payload: ByteBuffer(string: "later")))
                guard case .entered = outcome else {
                    Issue.record("\(outcome)")
                    return
                }
            }
            for _ in 1...2 {
                let answer = try await publish(service, "all%2Fnews", "one", id: "k", key: key)
                #expect(answer.status == status && (answer.status == 201 || answer.problem == "outcome-unknown"))
            }
            let texts = try await history(service, "all%2Fnews", "?limit=2", key: key).texts
            #expect(texts == (status == 201 ? ["one", "later"] : ["later", "later"]))
        }
    }

    @Test("a publish that others of its API key overtake is entered behind them")
    func overtakenNow() async throws {
        let now = Mutex(WallClock.milliseconds())
        try await withControl({ $0.time = { now.withLock { $0 } } }) { service in
            let key = try await service.appKey()
            #expect(try await publish(service, "all%2Fnews", "first", id: "1", key: key).status == 201)
            // The next numbers are two that were passed over, and the one that is taken.
            now.withLock { $0 -= 3 }
            try await service.database.pool.write { try $0.execute(sql: "UPDATE numbers SET last = last - 3") }
            let second = try await publish(service, "all%2Fnews", "second", id: "2", key: key)
            #expect(second.status == 201)
            let again = try await publish(service, "all%2Fnews", "second", id: "2", key: key)
            #expect(again.status == 201 && again.body == second.body)
            #expect(try await history(service, "all%2Fnews", key: key).texts == ["second", "first"])
        }
    }

    @Test("many at once into one channel are all entered, each once")
    func concurrent() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<40 {
                    group.addTask {
                        let answer = try await publish(service, "all%2Fnews", "\(number)", id: "\(number)", key: key)
                        #expect(answer.status == 201)
                    }
                }
                try await group.waitForAll()
            }
            let texts = try await history(service, "all%2Fnews", "?limit=100", key: key).texts
            #expect(texts.count == 40 && Set(texts).count == 40)
        }
    }

    @Test("history comes in pages, from either end, without a hole")
    func pages() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            for number in 0..<7 {
                #expect(try await publish(service, "all%2Fnews", "\(number)", id: "\(number)", key: key).status == 201)
            }
            for (order, expected) in [
                ("newest", (0..<7).reversed().map { "\($0)" }), ("oldest", (0..<7).map { "\($0)" }),
            ] {
                var (texts, cursor) = try await history(service, "all%2Fnews", "?limit=3&order=\(order)", key: key)
                #expect(texts == Array(expected[0..<3]))
                var pages = 1
                while let next = cursor {
                    let page = try await history(service, "all%2Fnews", "?limit=3&cursor=\(next)", key: key)
                    texts += page.texts
                    cursor = page.cursor
                    pages += 1
                }
                #expect(texts == expected && pages == 3)
            }
            for query in [
                "?limit=0", "?limit=101", "?limit=x", "?order=up", "?limit=1&limit=2", "?cursor=%ff",
            ] {
                let answer = try await service.ask(.get, "/v1/channels/all%2Fnews/messages\(query)", key: key)
                #expect(answer.status == 400, "\(query)")
            }
            #expect(try await service.ask(.get, "/v1/channels/all%2Fnews/messages?cursor=zzz", key: key).status == 404)
            let page = try await history(service, "all%2Fnews", "?limit=3&order=newest", key: key)
            let turned = "/v1/channels/all%2Fnews/messages?order=oldest&cursor=\(page.cursor ?? "")"
            #expect(try await service.ask(.get, turned, key: key).status == 404, "the pages are in another order")
            #expect(try await publish(service, "all%2Fother", "other", id: "other", key: key).status == 201)
            let elsewhere = "/v1/channels/all%2Fother/messages?cursor=\(page.cursor ?? "")"
            #expect(try await service.ask(.get, elsewhere, key: key).status == 404, "the page is of another channel")
            let news = ChannelKey(tenant: ControlService.tenant, channel: .all(try BroadcastID("news")))
            let wrong = HistoryCursor(order: .newest, channel: ChannelTag(news), epoch: 12, offset: 3).text
            let expired = try await service.ask(.get, "/v1/channels/all%2Fnews/messages?cursor=\(wrong)", key: key)
            #expect(expired.status == 410)
            // Of the first version: newest, epoch 12, offset 3, and no channel.
            let first = "AQAAAAAAAAAADAAAAAAAAAAD"
            let old = try await service.ask(.get, "/v1/channels/all%2Fnews/messages?cursor=\(first)", key: key)
            #expect(old.status == 410 && old.problem == "cursor-expired")
        }
    }

    @Test("a page of history ends before it has too many bytes, and has a large message alone")
    func bytes() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let text = String(repeating: "x", count: FrameLimits.maximumPayload)
            for number in 0..<70 {
                #expect(try await publish(service, "all%2Fnews", text, id: "\(number)", key: key).status == 201)
            }
            let first = try await history(service, "all%2Fnews", "?limit=100", key: key)
            #expect(first.texts.count == (1 << 20) / FrameLimits.maximumPayload)
            let cursor = try #require(first.cursor)
            let rest = try await history(service, "all%2Fnews", "?limit=100&cursor=\(cursor)", key: key)
            #expect(first.texts.count + rest.texts.count == 70 && rest.cursor == nil)
            for number in 0..<2 {
                let answer = try await publish(service, "all%2Flarge", text + "x", id: "large-\(number)", key: key)
                #expect(answer.status == 201)
            }
            for order in ["newest", "oldest"] {
                let page = try await history(service, "all%2Flarge", "?limit=100&order=\(order)", key: key)
                #expect(page.texts == [text + "x"] && page.cursor != nil)
            }
        }
    }

    @Test("a large message comes back whole, and one that is too large is refused")
    func large() async throws {
        try await withControl(limits: { $0.maximumPayload = 100_000 }) { service in
            let key = try await service.appKey()
            let text = String(repeating: "0123456789", count: 10_000)
            #expect(try await publish(service, "all%2Fnews", text, id: "1", key: key).status == 201)
            #expect(try await history(service, "all%2Fnews", key: key).texts == [text])
            let refused = try await publish(service, "all%2Fnews", text + "x", id: "2", key: key)
            #expect(refused.status == 413 && refused.problem == "payload-too-large")
            let body = try await publish(service, "all%2Fnews", text + text, id: "3", key: key)
            #expect(body.status == 413 && body.problem == "body-too-large")
        }
    }

    @Test("what is asked for is checked")
    func checked() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            // Every user has an inbox, also one whom nobody has seen; looking into it makes none.
            let store = try #require(try service.server.openStore() as? any StoreMaintenance)
            for order in ["newest", "oldest"] {
                #expect(try await history(service, "user%2Fnobody", "?order=\(order)", key: key).texts == [])
            }
            #expect(try await store.channels(after: 0, limit: 10).channels.isEmpty)
            #expect(try await service.ask(.get, "/v1/channels/hall/messages", key: key).status == 400)
            #expect(try await service.ask(.get, "/v1/channels/room%2Fnone/messages", key: key).status == 404)
            for (body, headers, problem) in [
                (#"{"sender":"app","text":"x"}"#, HTTPFields(), "idempotency-key-missing"),
                (#"{"sender":"app","text":"x"}"#, [.idempotencyKey: "a b"], "invalid-request"),
                (#"{"sender":"app"}"#, [.idempotencyKey: "k"], "invalid-request"),
                (#"{"sender":"app","text":"x","payload":"eA=="}"#, [.idempotencyKey: "k"], "invalid-request"),
                (#"{"sender":"app","payload":"?"}"#, [.idempotencyKey: "k"], "invalid-request"),
                (#"{"sender":"a p","text":"x"}"#, [.idempotencyKey: "k"], "invalid-request"),
                (#"{"text":"x"}"#, [.idempotencyKey: "k", .contentType: "text/plain"], "unsupported-media-type"),
            ] {
                let answer = try await service.ask(
                    .post, "/v1/channels/all%2Fnews/messages", key: key, json: body, headers: headers)
                #expect(answer.problem == problem, "\(body)")
            }
        }
    }

    @Test("members of a room are whom the app server says, and their sessions know at once")
    func members() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let hall = known { try RoomID("hall") }
            let client = try await service.client("ann", key: key)
            try await client.connect()
            let path = "/v1/rooms/hall/members/ann"
            let made = try await service.ask(.put, path, key: key)
            #expect(try made.string("room") == "hall")
            // What is so already stays.
            #expect(try await service.ask(.put, path, key: key).body == made.body)
            #expect(
                try await service.ask(.put, "/v1/rooms/hall/members/bob", key: key, json: #"{"role":"owner"}"#).status
                    == 200)
            #expect(
                try await client.members(of: hall, limit: 10).members
                    == [
                        RoomMember(user: known { try UserID("ann") }, role: .owner),
                        RoomMember(user: known { try UserID("bob") }, role: .owner),
                    ])
            #expect(try await service.ask(.delete, path, key: key).status == 204)
            #expect(try await service.ask(.delete, path, key: key).status == 204)
            await #expect(throws: ClientError.self) { _ = try await client.members(of: hall, limit: 10) }
            // The last owner can't be made an ordinary member.
            let last = try await service.ask(.put, "/v1/rooms/hall/members/bob", key: key, json: #"{"role":"member"}"#)
            #expect(last.problem == "limit-reached")
            // A room that nobody may join by oneself takes whom the app server names.
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
            #expect(try await service.ask(.put, "/v1/rooms/a%2Fb/members/ann", key: key).status == 400)
            await client.disconnect()
        }
    }

    @Test("members and settings of a room come in pages, and a deletion ends it for all of them")
    func rooms() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let hall = known { try RoomID("hall") }
            let client = try await service.client("ann", key: key)
            try await client.connect()
            for name in ["ann", "bob", "carol"] {
                #expect(try await service.ask(.put, "/v1/rooms/hall/members/\(name)", key: key).status == 200)
            }
            _ = try await client.setJoining(.byOwners, of: hall)
            _ = try await client.setPublishing(.owners, in: hall)
            func page(_ query: String) async throws -> ControlService.Answer {
                try await service.ask(.get, "/v1/rooms/hall/members\(query)", key: key, on: .service)
            }
            func members(_ answer: ControlService.Answer) throws -> [String] {
                try answer.array("members").compactMap { $0 as? [String: Any] }.map {
                    "\($0["user"] as? String ?? "") \($0["role"] as? String ?? "")"
                }
            }
            let first = try await page("?limit=2")
            #expect(try members(first) == ["ann owner", "bob member"])
            #expect(try first.object()["total"] as? Int == 3)
            #expect(try first.string("joining") == "owners")
            #expect(try first.string("publishing") == "owners")
            let last = try await page("?limit=2&cursor=\(try first.string("cursor"))")
            #expect(try members(last) == ["carol member"])
            #expect(try last.object()["cursor"] == nil)
            #expect(try await page("?cursor=a%2Fb").status == 404)
            #expect(try await service.ask(.get, "/v1/rooms/none/members", key: key).status == 404)

            // Again, it enters nothing more.
            for _ in 0..<2 {
                let deleted = try await service.ask(.delete, "/v1/rooms/hall?sender=app", key: key, on: .service)
                #expect(deleted.status == 204)
            }
            #expect(try await service.ask(.delete, "/v1/rooms/none", key: key).status == 204)
            #expect(try await page("").status == 404)
            await #expect(throws: ClientError.self) { _ = try await client.members(of: hall, limit: 10) }
            let log = try await service.ask(.get, "/v1/channels/room%2Fhall/messages", key: key)
            let changes = try log.array("messages").compactMap { $0 as? [String: Any] }.filter {
                $0["kind"] as? String == "changed"
            }
            #expect(changes.map { $0["sender"] as? String } == ["app", "ann", "ann"])

            // Of what comes of the name afterwards, the members of before hear nothing.
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/bob", key: key).status == 200)
            #expect(try await publish(service, "room%2Fhall", "not for ann", id: "1", key: key).status == 201)
            #expect(try await publish(service, "user%2Fann", "for ann", id: "2", key: key).status == 201)
            var texts: [String] = []
            for await message in client.messages {
                message.confirm()
                texts.append(message.text)
                if message.text == "for ann" { break }
            }
            #expect(!texts.contains("not for ann"))
            await client.disconnect()
        }
    }

    @Test("names with a plus sign are found by it, encoded or not, also behind a page")
    func plusSigns() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            for name in ["ann", "ann+home", "ann+work", "bob"] {
                #expect(try await service.ask(.put, "/v1/rooms/hall/members/\(name)", key: key).status == 200)
            }
            for write in [{ $0 }, { $0.replacing("+", with: "%2B") }] as [(String) -> String] {
                var (names, cursor): ([String], String?) = ([], nil)
                repeat {
                    let query = cursor.map { "&cursor=\(write($0))" } ?? ""
                    let page = try await service.ask(.get, "/v1/rooms/hall/members?limit=1\(query)", key: key)
                    #expect(page.status == 200)
                    names += try page.array("members").compactMap { ($0 as? [String: Any])?["user"] as? String }
                    cursor = try page.object()["cursor"] as? String
                } while cursor != nil && names.count < 8
                #expect(names == ["ann", "ann+home", "ann+work", "bob"])
            }
            // A space is none.
            #expect(try await service.ask(.get, "/v1/rooms/hall/members?cursor=ann%20home", key: key).status == 404)
            let client = try await service.client("ann", "phone+2", key: key)
            try await client.connect()
            let path = "/v1/users/ann/sessions?tenant=acme&device=phone+2&reason=for+now"
            let ended = try await service.ask(.delete, path, key: try await service.operatorKey())
            #expect(try ended.object()["ended"] as? Int == 1)
            await client.disconnect()
        }
    }
}
