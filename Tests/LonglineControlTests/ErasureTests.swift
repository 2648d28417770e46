import Foundation
import GRDB
import HTTPTypes
import Logging
import LonglineClient
import LonglineStore
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineControl
@testable import LonglineServer

@Suite("What is kept of an erased user", .timeLimit(.minutes(2))) struct ErasureTests {
    private static let ann = known { try UserID("ann") }

    private func count(_ table: String, of user: String, in database: ControlDatabase) async throws -> Int {
        try await database.pool.read { db in
            try Int.fetchOne(db, sql: "SELECT count(*) FROM \(table) WHERE user = ?", arguments: [user]) ?? 0
        }
    }

    @Test("logins and results of requests go with the account, and nobody else's")
    func erased() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            func issue(_ user: String) async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"\#(user)","device":"phone","login":true}"#,
                    headers: [.idempotencyKey: "of-\(user)"])
            }
            func publish(_ number: Int) async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/channels/all%2Fnews/messages", key: key, json: #"{"sender":"ann","text":"hello"}"#,
                    headers: [.idempotencyKey: "message-\(number)"])
            }
            let bob = try await issue("bob")
            #expect(try await issue("ann").status == 201)
            #expect(try await publish(1).status == 201)
            _ = try await service.token("ann", "session-of-the-web", key: key)
            #expect(try await count("logins", of: "ann", in: service.database) == 2)
            #expect(try await count("idempotency", of: "ann", in: service.database) == 2)

            try await service.server.erase(user: Self.ann, in: ControlService.tenant)
            #expect(try await count("logins", of: "ann", in: service.database) == 0)
            #expect(try await count("idempotency", of: "ann", in: service.database) == 0)
            let results = try await service.database.pool.read {
                try Data.fetchAll($0, sql: "SELECT result FROM idempotency")
            }
            #expect(results.count == 3 && !results.contains { String(decoding: $0, as: UTF8.self).contains("ann") })

            // What was done once is not done again, though nobody knows any more how it ended.
            #expect(try await issue("ann").problem == "outcome-unknown")
            #expect(try await publish(1).problem == "outcome-unknown")
            #expect(try await count("logins", of: "bob", in: service.database) == 1)
            #expect(try await issue("bob").string("token_id") == bob.string("token_id"))
        }
    }

    @Test("who asks for a token, writes as the user or makes it a member while it is erased is told to come again")
    func meanwhile() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let (gate, reached) = (Gate(), AsyncStream.makeStream(of: Void.self))
            defer { gate.open() }
            // Behind what the control layer forgets, and before the store's first step.
            service.server.alsoErase { _, _ in
                reached.continuation.finish()
                await gate.wait()
            }
            func issue(login: Bool, _ headers: HTTPFields = [:]) async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone","login":\#(login)}"#,
                    headers: headers)
            }
            func publish() async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/channels/all%2Fnews/messages", key: key, json: #"{"sender":"ann","text":"hello"}"#,
                    headers: [.idempotencyKey: "message"])
            }
            #expect(try await issue(login: true).status == 201)
            let server = service.server
            let erasure = Task { try await server.erase(user: Self.ann, in: ControlService.tenant) }
            for await _ in reached.stream {}
            let answers = [
                try await issue(login: true), try await issue(login: false),
                try await issue(login: true, [.idempotencyKey: "k"]), try await publish(),
                try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key),
            ]
            for answer in answers {
                #expect(answer.status == 503 && answer.problem == "unavailable")
                #expect(answer.headers[.retryAfter].flatMap { Int($0) } ?? 0 > 0)
            }
            #expect(try await service.token("bob", key: key).isEmpty == false)
            #expect(try await count("logins", of: "ann", in: service.database) == 0)
            #expect(try await count("idempotency", of: "ann", in: service.database) == 0)
            gate.open()
            try await erasure.value
            // The keys were given back.
            #expect(try await issue(login: true, [.idempotencyKey: "k"]).status == 201)
            #expect(try await publish().status == 201)
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/ann", key: key).status == 200)
        }
    }

    @Test("a token that is about to be kept when the account is erased is none")
    func tokenUnderWay() async throws {
        try await withControl { service in
            let database = service.database
            let keys = IdempotencyKeys(database, time: WallClock.milliseconds, logger: Logger(label: "test"))
            let subject = UserKey(tenant: ControlService.tenant, user: Self.ann)
            let phone = DeviceKey(tenant: ControlService.tenant, user: Self.ann, device: try DeviceID("phone"))
            let problem = await #expect(throws: Problem.self) {
                _ = try await keys.once("k", of: "api", about: subject, request: Data([1])) { _, _ in
                    try await database.forget(Self.ann, in: ControlService.tenant)
                    let name = IdempotencyKeys.Name(apiKey: "api", key: "k")
                    _ = try await LoginEpochs(database: database).allot(phone, now: 0) { _, db in
                        try IdempotencyKeys.keep(Data("ann's".utf8), under: name, db)
                    }
                    return Data("ann's".utf8)
                }
            }
            #expect(problem?.kind == .outcomeUnknown)
            #expect(try await count("logins", of: "ann", in: database) == 0)
            #expect(try await count("idempotency", of: "ann", in: database) == 0)
        }
    }

    @Test("a login that is about to be written when the account's erasure is resolved is none")
    func loginUnderWay() async throws {
        try await withControl { service in
            let (key, server, gate) = (try await service.appKey(), service.server, Gate())
            // The store's first step waits, so that the erasure goes on for as long as it takes.
            server.alsoErase { _, _ in await gate.wait() }
            let (isHeld, release) = (Flag(), DispatchSemaphore(value: 0))
            defer {
                release.signal()
                gate.open()
            }
            try await service.database.pool.writeWithoutTransaction { db in
                db.add(
                    function: DatabaseFunction("hold", argumentCount: 0) { _ in
                        isHeld.set()
                        release.wait()
                        return nil
                    })
                try db.execute(sql: "CREATE TEMP TRIGGER held BEFORE INSERT ON logins BEGIN SELECT hold(); END")
            }
            let issuing = Task {
                try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone","login":true}"#,
                    headers: [.idempotencyKey: "k"])
            }
            while !isHeld.isSet { await Task.yield() }
            let erasure = Task { try await server.erase(user: Self.ann, in: ControlService.tenant) }
            while try await !server.isErasurePending(of: Self.ann, in: ControlService.tenant) { await Task.yield() }
            // Whatever of the user's the control layer forgets, it forgets behind the login.
            let loops = try server.requireRuntime().loops
            while await loops.submit({ $0.workWaiterCount }).allSatisfy({ $0 == 0 }) { await Task.yield() }
            release.signal()
            let answer = try await issuing.value
            #expect(answer.status == 503 && answer.problem == "unavailable")
            gate.open()
            try await erasure.value
            #expect(try await count("logins", of: "ann", in: service.database) == 0)
            #expect(try await count("idempotency", of: "ann", in: service.database) == 0)
        }
    }

    @Test("an app's server erases an account, learns whether that is done, and may ask again")
    func byRoute() async throws {
        try await withControl { service in
            let (key, eraser) = (try await service.appKey(), try await service.key([.erase]))
            let token = try await service.token("ann", key: key)
            let client = try await service.client("ann", "tablet", key: key)
            try await client.connect()
            func erase() async throws -> ControlService.Answer {
                try await service.ask(.delete, "/v1/users/ann", key: eraser, on: .service)
            }
            // Who may revoke may not erase.
            #expect(try await service.ask(.delete, "/v1/users/ann", key: key).problem == "forbidden")
            #expect(service.server.devices(of: Self.ann, in: ControlService.tenant).count == 1)

            let (reached, gate) = (Gate(), Gate())
            service.server.alsoErase { _, _ in
                reached.open()
                await gate.wait()
            }
            let begun = try await erase()
            #expect(begun.status == 202)
            #expect(try begun.string("user") == "ann")
            await reached.wait()
            #expect(service.server.devices(of: Self.ann, in: ControlService.tenant) == [])
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).status == 401)
            gate.open()
            // Who has no account any more may be erased again.
            for _ in 0..<2 {
                var answer = try await erase()
                while answer.status == 202 { answer = try await erase() }
                #expect(answer.status == 204 && answer.body.isEmpty)
                #expect(try await count("logins", of: "ann", in: service.database) == 0)
            }
            await client.disconnect()
        }
    }

    @Test("a result that comes in after the erasure is not kept")
    func underWay() async throws {
        try await withControl { service in
            let keys = IdempotencyKeys(service.database, time: WallClock.milliseconds, logger: Logger(label: "test"))
            let subject = UserKey(tenant: ControlService.tenant, user: Self.ann)
            let database = service.database
            let result = try await keys.once("k", of: "api", about: subject, request: Data([1])) { _, _ in
                try await database.forget(Self.ann, in: ControlService.tenant)
                return Data("ann's".utf8)
            }
            #expect(result == Data("ann's".utf8))
            let kept = try await database.pool.read { try Data.fetchOne($0, sql: "SELECT result FROM idempotency") }
            #expect(kept == Data())
        }
    }

    @Test("an erasure that the control database could not follow goes on at the next start")
    func resumed() async throws {
        let folder = try TemporaryFolder()
        let first = try await ControlService(folder: folder)
        _ = try await first.token("ann", key: try await first.appKey())
        try await first.database.pool.write { try $0.execute(sql: "ALTER TABLE logins RENAME TO hidden") }
        await #expect(throws: ServerError.self) {
            try await first.server.erase(user: Self.ann, in: ControlService.tenant)
        }
        try await first.database.pool.write { try $0.execute(sql: "ALTER TABLE hidden RENAME TO logins") }
        #expect(try await count("logins", of: "ann", in: first.database) == 1)
        try await first.stop()

        let second = try await ControlService(folder: folder)
        while try await count("logins", of: "ann", in: second.database) != 0 {
            try await Task.sleep(for: .milliseconds(10))
        }
        try await second.stop()
    }

    @Test("logins are forgotten that nobody asked for as long as the store may know the device, and no earlier")
    func unused() async throws {
        let folder = try TemporaryFolder()
        let database = try ControlDatabase(path: folder.path + "/control.db")
        let logins = LoginEpochs(database: database)
        let day: UInt64 = 24 * 3_600 * 1_000
        let start: UInt64 = 1_800_000_000_000
        func device(_ name: String) throws -> DeviceKey {
            DeviceKey(tenant: ControlService.tenant, user: Self.ann, device: try DeviceID(name))
        }
        let (phone, web) = (try device("phone"), try device("web"))
        let epoch = try await logins.allot(phone, now: start)
        let other = try await logins.allot(web, now: start)
        // One of them is renewed now and then.
        #expect(try await logins.last(phone, now: start + 100 * day) == epoch)
        let lifetime = Duration.seconds(30 * 24 * 3_600)
        try await logins.sweep(now: start + 211 * day, tokenLifetime: lifetime)
        #expect(try await logins.last(web, now: start) == other)
        try await logins.sweep(now: start + 212 * day, tokenLifetime: lifetime)
        #expect(try await logins.last(web, now: start) == 0)
        #expect(try await logins.last(phone, now: start + 212 * day) == epoch)
        // The next one is above all that there were.
        #expect(try await logins.allot(web, now: start + 212 * day) > other)
        try database.close()
    }

    @Test("logins are kept as long as the server's store is set to remember devices")
    func configuredMemory() async throws {
        let folder = try TemporaryFolder()
        let day: UInt64 = 24 * 3_600 * 1_000
        var limits = StoreLimits()
        limits.unseen = 400 * day
        let directory = try ServerDirectory(folder.path)
        let identity = try directory.developmentIdentity(names: ["localhost"])
        var settings = SQLiteStoreConfiguration(directory: directory.storePath)
        settings.limits = limits
        let database = try ControlDatabase(directory)
        for store in [LonglineServer.Configuration.Store.sqlite(settings), .shared(InMemoryStore(limits: limits))] {
            let server = LonglineServer(
                configuration: LonglineServer.Configuration(
                    store: store, certificate: { identity.credentials }, tokenKeys: [], addresses: []))
            let control = try LonglineControl(
                server: server,
                configuration: LonglineControl.Configuration(
                    certificate: { identity.credentials }, keys: DirectoryControlKeys(directory), database: database))
            #expect(control.janitor.unseen == limits.unseen)
        }
        let logins = LoginEpochs(database: database)
        let start: UInt64 = 1_800_000_000_000
        let phone = DeviceKey(tenant: ControlService.tenant, user: Self.ann, device: try DeviceID("phone"))
        let epoch = try await logins.allot(phone, now: start)
        let lifetime = Duration.seconds(30 * 24 * 3_600)
        try await logins.sweep(now: start + 431 * day, tokenLifetime: lifetime, unseen: limits.unseen)
        #expect(try await logins.last(phone, now: start) == epoch)
        try await logins.sweep(now: start + 432 * day, tokenLifetime: lifetime, unseen: .max)
        #expect(try await logins.last(phone, now: start) == epoch)
        try await logins.sweep(now: start + 432 * day, tokenLifetime: lifetime, unseen: limits.unseen)
        #expect(try await logins.last(phone, now: start) == 0)
        try database.close()
    }

    @Test("a clock that was ahead at the start has nothing forgotten, nor one that is set later")
    func wrongClock() async throws {
        let folder = try TemporaryFolder()
        let database = try ControlDatabase(path: folder.path + "/control.db")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let (hour, year): (UInt64, UInt64) = (3_600 * 1_000, 365 * 24 * 3_600 * 1_000)
        let wall = Mutex<UInt64>(1_800_000_000_000)
        let time: @Sendable () -> UInt64 = { wall.withLock { $0 } }
        let keys = IdempotencyKeys(database, time: time, logger: logger)
        let logins = LoginEpochs(database: database)
        let phone = DeviceKey(tenant: ControlService.tenant, user: Self.ann, device: try DeviceID("phone"))
        let epoch = try await logins.allot(phone, now: time())
        let subject = UserKey(tenant: ControlService.tenant, user: Self.ann)
        _ = try await keys.once("once", of: "k", about: subject, request: Data([1])) { _, _ in Data([2]) }
        func count() async throws -> Int {
            try await database.pool.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM idempotency") } ?? 0
        }
        let janitor = ControlJanitor(
            keys: keys, logins: logins, time: time, tokenLifetime: .seconds(3_600), logger: logger)
        var steadiness = ClockSteadiness()
        var instant = ContinuousClock.now
        func turn(_ clock: (inout UInt64) -> Void) async {
            wall.withLock { clock(&$0) }
            await janitor.turn(&steadiness, at: instant)
            instant += .seconds(3_600)
        }
        await turn { $0 += year }
        await turn { $0 -= year - hour }
        await turn { $0 += year + hour }
        await turn { $0 -= year - hour }
        #expect(try await count() == 1)
        #expect(try await logins.last(phone, now: 0) == epoch)
        // Once it goes on as time does, what is over goes.
        await turn { $0 += year + hour }
        await turn { $0 += hour + 200_000 }
        #expect(try await count() == 0)
        #expect(try await logins.last(phone, now: 0) == 0)
        try database.close()
    }

    @Test("an API key has a limit of idempotency keys, which counts what was kept before, given back and forgotten")
    func keysOfAnAPIKey() async throws {
        let folder = try TemporaryFolder()
        let database = try ControlDatabase(path: folder.path + "/control.db")
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let wall = Mutex<UInt64>(1_800_000_000_000)
        let time: @Sendable () -> UInt64 = { wall.withLock { $0 } }
        func keys() -> IdempotencyKeys { IdempotencyKeys(database, time: time, logger: logger, limit: 2) }
        let subject = UserKey(tenant: ControlService.tenant, user: Self.ann)
        func ask(_ key: String, of apiKey: String = "shop", _ keys: IdempotencyKeys) async throws -> Problem.Kind? {
            do {
                _ = try await keys.once(key, of: apiKey, about: subject, request: Data([1])) { _, _ in
                    if key == "refused" { throw Problem(.blocked) }
                    return Data([2])
                }
                return nil
            } catch let problem as Problem { return problem.kind }
        }
        var present = keys()
        #expect(try await ask("a", present) == nil)
        #expect(try await ask("refused", present) == .blocked)
        #expect(try await ask("b", present) == nil)
        present = keys()
        #expect(try await ask("c", present) == .overloaded)
        #expect(try await ask("a", present) == nil, "it is known")
        #expect(try await ask("c", of: "post", present) == nil)
        wall.withLock { $0 += IdempotencyKeys.lifetime }
        try await present.sweep(now: time())
        #expect(try await ask("c", present) == nil)
        #expect(try await ask("d", present) == nil)
        #expect(try await ask("e", present) == .overloaded)
        try database.close()
    }

    @Test("a database of before has its users named, and its logins counted as seen")
    func migrated() async throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/control.db"
        let old = try DatabasePool(path: path)
        try ControlDatabase.migrator.migrate(old, upTo: "1")
        try await old.write { db in
            try db.execute(
                sql: """
                    INSERT INTO api_keys (id, hash, tenant, rights, label, created) VALUES ('k', x'00', 'acme', '', '', 0);
                    INSERT INTO logins (tenant, user, device, epoch) VALUES ('acme', 'ann', 'phone', 7);
                    INSERT INTO idempotency (api_key, key, request, created, number, result) VALUES
                        ('k', 'a', x'00', 0, 1, CAST('{"user":"ann","device":"phone"}' AS BLOB)),
                        ('k', 'b', x'00', 0, 2, CAST('{"channel":"user/ann","offset":3}' AS BLOB)),
                        ('k', 'c', x'00', 0, 3, CAST('{"channel":"room/hall","offset":3}' AS BLOB)),
                        ('k', 'd', x'00', 0, 4, NULL);
                    """)
        }
        try old.close()
        let database = try ControlDatabase(path: path)
        #expect(try await count("idempotency", of: "ann", in: database) == 2)
        let now = WallClock.milliseconds()
        let logins = LoginEpochs(database: database)
        try await logins.sweep(now: now, tokenLifetime: .seconds(1))
        let phone = DeviceKey(tenant: ControlService.tenant, user: Self.ann, device: try DeviceID("phone"))
        #expect(try await logins.last(phone, now: now) == 7)
        try await database.forget(Self.ann, in: ControlService.tenant)
        #expect(try await count("idempotency", of: "ann", in: database) == 0)
        try database.close()
    }
}
