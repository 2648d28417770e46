import Foundation
import GRDB
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

#if canImport(Glibc)
    import Glibc
#endif

/// Real processes of an app, killed and stopped in the middle.
@Suite("Processes of an app", .serialized, .timeLimit(.minutes(2)))
struct AppProcessTests {
    private func sharing(
        _ service: LiveService, _ directory: TemporaryFolder, _ tag: String, takeOverAfter: Int = 60_000
    ) async throws -> AppProcess {
        let token = directory.file("token")
        if !FileManager.default.fileExists(atPath: token) {
            try await service.token("alice").write(toFile: token, atomically: true, encoding: .utf8)
        }
        return try AppProcess([
            "share", "\(service.port)", service.pinText, token, directory.file("shared.sqlite"), tag,
            "\(takeOverAfter)",
        ])
    }

    /// What alice published, in the log's order.
    private func published(_ service: LiveService) async throws -> [Entry] {
        await service.stop()
        let store = try SQLiteStore(SQLiteStoreConfiguration(directory: service.storePath))
        let channel = ChannelKey(tenant: try TenantID("default"), channel: .user(try UserID("alice")))
        var entries: [Entry] = []
        while true {
            let page = try await store.read(
                channel, after: entries.last?.offset ?? 0, upTo: nil, maximumBytes: 1_000_000, now: 0)
            let more = page.items.compactMap { item -> Entry? in if case .entry(let entry) = item { entry } else { nil }
            }
            guard !more.isEmpty else { break }
            entries += more
        }
        try await store.close()
        return entries
    }

    /// Every message once, each process's in its order, and no publish ID twice.
    private func check(_ entries: [Entry], _ processes: [(tag: String, process: AppProcess)]) {
        let texts = entries.map { String(buffer: $0.payload) }
        for (tag, process) in processes {
            let numbers = texts.filter { $0.hasPrefix(tag + "-") }.compactMap { Int($0.dropFirst(tag.count + 1)) }
            #expect(numbers == Array(0..<numbers.count).map { $0 + 1 }, "\(tag): each once, in order")
            #expect(numbers.count >= process.count("sent"), "\(tag): what was durable is there")
            // The one that was put in when the process died may be, or not.
            #expect(numbers.count <= process.count("sent") + 1)
        }
        let producers = Set(entries.map(\.producer))
        #expect(producers.count == 1, "one outbox, one producer")
        let ids = entries.map(\.publishID)
        #expect(ids == ids.sorted() && Set(ids).count == ids.count, "no ID twice")
    }

    @Test("the owner is killed in the middle: the other process takes over, and nothing is lost or doubled")
    func killedOwner() async throws {
        let service = try await LiveService()
        let directory = try TemporaryFolder()
        let first = try await sharing(service, directory, "a")
        #expect(await first.wait(for: "state connected"))
        let second = try await sharing(service, directory, "b")
        #expect(await second.wait(for: "state standby"))
        #expect(await first.wait(60, "sent"))
        #expect(await second.wait(60, "acknowledged"), "the owner publishes what the other one put in, and it is told")
        #expect(!second.lines.contains("state connected"))
        first.signal(SIGKILL)
        await first.ended()
        #expect(await second.wait(for: "state connected"))
        let before = second.count("acknowledged")
        #expect(await second.wait(before + 40, "acknowledged"))
        second.finishInput()
        #expect(await second.wait(for: "done"))
        await second.ended()
        #expect(second.count("acknowledged") == second.count("sent"))
        check(try await published(service), [("a", first), ("b", second)])
    }

    /// Stops a process while it has no transaction under way, as an app does that finishes its background task in time: nobody can
    /// write to a file that a stopped process has locked.
    private func stop(_ process: AppProcess, outsideTransactionsOn path: String) async throws {
        var configuration = Configuration()
        configuration.busyMode = .immediateError
        let probe = try DatabaseQueue(path: path, configuration: configuration)
        while true {
            process.signal(SIGSTOP)
            // It has stopped when the kernel says so.
            while try String(contentsOfFile: "/proc/\(process.pid)/stat", encoding: .utf8).contains(") T ") == false {
                await Task.yield()
            }
            let isFree =
                (try? await probe.writeWithoutTransaction { try $0.inTransaction(.immediate) { .rollback } }) != nil
            if isFree { return try probe.close() }
            process.signal(SIGCONT)
            try await Task.sleep(for: .milliseconds(1))
        }
    }

    @Test("an owner that sleeps loses the outbox, and gives what it had to the new owner when it wakes up")
    func sleepingOwner() async throws {
        let service = try await LiveService()
        let directory = try TemporaryFolder()
        let first = try await sharing(service, directory, "a", takeOverAfter: 3_000)
        #expect(await first.wait(for: "state connected"))
        let second = try await sharing(service, directory, "b", takeOverAfter: 3_000)
        #expect(await second.wait(for: "state standby"))
        #expect(await first.wait(30, "sent"))
        // Awake, it answers each challenge: a long wait takes nothing from it.
        #expect(await second.wait(400, "acknowledged"))
        #expect(!second.lines.contains("state connected"))
        try await stop(first, outsideTransactionsOn: directory.file("shared.sqlite"))
        #expect(await second.wait(for: "state connected"))
        let before = second.count("acknowledged")
        #expect(await second.wait(before + 20, "acknowledged"))
        first.signal(SIGCONT)
        #expect(await first.wait(for: "state standby"))
        let sent = first.count("sent")
        #expect(await first.wait(sent + 20, "sent"))
        first.finishInput()
        #expect(await first.wait(for: "done"))
        second.finishInput()
        #expect(await second.wait(for: "done"))
        for process in [first, second] {
            await process.ended()
            #expect(process.count("acknowledged") == process.count("sent"))
        }
        check(try await published(service), [("a", first), ("b", second)])
    }

    /// What a process said that opened a storage and closed it again.
    private func opened(_ path: String, isShared: Bool = false) async throws -> [String] {
        let process = try AppProcess(["open", isShared ? "shared" : "alone", path])
        await process.ended()
        return process.lines
    }

    @Test("a second opening in one process fails, and keeps other processes out as before")
    func openedTwice() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let storage = try SQLiteClientStorage(path: path)
        #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(try await opened(path) == ["storageInUse"])
        try await storage.apply([.lastID(7)])
        #expect(try await storage.load().lastID == 7)
        try storage.close()
        #expect(try await opened(path) == ["opened"])
    }

    @Test("a shared storage that is opened twice in one process loses nothing when another process opens and closes it")
    func sharedTwice() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("shared.sqlite")
        let first = try SharedClientStorage(path: path)
        func submit(_ number: UInt64) async throws {
            let submission = Submission(
                send: SendID(high: 1, low: number), destination: .user(try UserID("bob")), timeToLive: 0, queuedAt: 5,
                payload: ByteBuffer(string: "text"))
            _ = try await first.submit(submission, limits: OutboxLimits())
        }
        try await submit(1)
        let second = try SharedClientStorage(path: path)
        #expect(try await opened(path, isShared: true) == ["opened 1"])
        try await second.close()
        #expect(try await opened(path, isShared: true) == ["opened 1"])
        #expect(FileManager.default.fileExists(atPath: path + "-wal"), "which this process writes to")
        try await submit(2)
        #expect(try await opened(path, isShared: true) == ["opened 2"])
        try await first.close()
        let again = try SharedClientStorage(path: path)
        #expect(try await again.waiting().count == 2)
        try await again.close()
    }

    @Test("an app that keeps the position with the effect has each effect once, wherever it is killed")
    func exactlyOnce() async throws {
        let service = try await LiveService()
        let directory = try TemporaryFolder()
        let token = directory.file("token")
        try await service.token("bob").write(toFile: token, atomically: true, encoding: .utf8)
        let arguments = [
            "receive", "\(service.port)", service.pinText, token, directory.file("client.sqlite"),
            directory.file("app.sqlite"),
        ]
        let writer = try service.client("alice")
        try await writer.connect()
        var count = 0
        func write(_ more: Int) async throws {
            var receipts: [SendReceipt] = []
            for index in count..<count + more { receipts.append(try await writer.send("\(index)", to: .user("bob"))) }
            for receipt in receipts { _ = try await receipt.acknowledged() }
            count += more
        }
        for killAfter in [1, 7, 20, 33, 60] {
            // Each life finds enough of its own: the one before may have stored all there was before it was killed.
            try await write(2 * killAfter + 40)
            let process = try AppProcess(arguments)
            #expect(await process.wait(killAfter, "stored"))
            process.signal(SIGKILL)
            await process.ended()
        }
        try await write(10)
        let last = try AppProcess(arguments)
        #expect(await last.wait(for: "stored \(count - 1)"))
        last.signal(SIGKILL)
        await last.ended()
        let database = try DatabaseQueue(path: directory.file("app.sqlite"))
        let effects = try await database.read { try String.fetchAll($0, sql: "SELECT text FROM effect ORDER BY id") }
        #expect(effects == (0..<count).map(String.init))
        await writer.disconnect()
        await service.stop()
    }
}
