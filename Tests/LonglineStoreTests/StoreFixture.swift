import Foundation
import Logging
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineStore

/// Both stores: every rule is tested on each.
enum StoreKind: String, CaseIterable, CustomTestStringConvertible {
    case memory, sqlite
    var testDescription: String { rawValue }
}

/// A wall clock that moves when a test says so.
final class TestClock: Sendable {
    private let time = Mutex<UInt64>(1_700_000_000_000)
    var now: UInt64 { time.withLock { $0 } }
    func set(_ value: UInt64) { time.withLock { $0 = value } }
    func advance(_ milliseconds: UInt64) { time.withLock { $0 += milliseconds } }
    var read: @Sendable () -> UInt64 { { self.now } }
}

func quietLogger() -> Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }

func configuration(_ path: String) -> SQLiteStoreConfiguration {
    SQLiteStoreConfiguration(directory: path, logger: quietLogger())
}

typealias AnyStore = any MessageStore & StoreMaintenance

/// Runs a test's body on a fresh store.
func withStore(
    _ kind: StoreKind, limits: StoreLimits = StoreLimits(), clock: TestClock = TestClock(),
    _ body: (AnyStore) async throws -> Void
) async throws {
    switch kind {
    case .memory:
        try await body(InMemoryStore(limits: limits, clock: clock.read, random: SeededRandom(seed: 1)))
    case .sqlite:
        let folder = try TemporaryFolder()
        var settings = configuration(folder.path)
        settings.limits = limits
        let store = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: 1))
        do {
            try await body(store)
        } catch {
            try await store.close()
            throw error
        }
        try await store.close()
    }
}

// Names in tests are right by construction.
func must<Value>(_ name: () throws -> Value) -> Value {
    do { return try name() } catch { fatalError("\(error)") }
}

let tenant = must { try TenantID("acme") }

func user(_ name: String) -> UserID { must { try UserID(name) } }
func room(_ name: String) -> RoomID { must { try RoomID(name) } }
func inbox(_ name: String) -> ChannelKey { ChannelKey(tenant: tenant, channel: .user(user(name))) }
func roomKey(_ name: String) -> ChannelKey { ChannelKey(tenant: tenant, channel: .room(room(name))) }

func device(_ name: String, _ device: String = "phone") -> DeviceKey {
    DeviceKey(tenant: tenant, user: user(name), device: must { try DeviceID(device) })
}

let producer = ProducerID(high: .max, low: 7)

/// A publish request with the fields that most tests leave alone filled in.
func request(
    _ sender: String = "alice", to channel: ChannelID? = nil, recipient: String? = nil, id: PublishID,
    after: PublishID? = nil, tag: PublishTag? = nil, producer: ProducerID = producer, device name: String = "phone",
    timeToLive: UInt64 = 0, _ text: String = "hello"
) -> AppendRequest {
    AppendRequest(
        device: device(sender, name), producer: producer, channel: channel ?? .user(user(sender)),
        publish: Publish(
            id: id, tag: tag ?? (id &+ 0xF000_0000_0000_0000), after: after ?? (id == 0 ? 0 : id - 1),
            recipient: recipient.map(user), timeToLive: timeToLive, payload: ByteBuffer(string: text)))
}

extension AppendOutcome {
    var published: Published? {
        switch self {
        case .entered(let published, _, _, _), .duplicate(let published): published
        case .refused: nil
        }
    }
    var refused: Refused? { if case .refused(let refused) = self { refused } else { nil } }
    var isEntered: Bool { if case .entered = self { true } else { false } }
    var copy: InboxCopy? { if case .entered(_, _, _, let copy) = self { copy } else { nil } }
}

extension ChannelLog {
    func append(_ request: AppendRequest) async throws -> AppendOutcome {
        try #require(await append([request]).first)
    }

    /// Enters a publish, or fails the test.
    @discardableResult
    func enter(_ request: AppendRequest) async throws -> Published {
        let outcome = try await append(request)
        try #require(outcome.isEntered, "\(outcome)")
        return try #require(outcome.published)
    }

    /// The whole log, page by page, with the chain checked.
    func all(
        _ channel: ChannelKey, after: Offset = 0, upTo: Offset? = nil, pageBytes: Int = 1_000_000, now: UInt64 = 0
    ) async throws -> [LogItem] {
        var items: [LogItem] = []
        var end = after
        while true {
            let page = try await read(channel, after: end, upTo: upTo, maximumBytes: pageBytes, now: now)
            guard !page.items.isEmpty else { return items }
            end = max(end, page.first)
            for item in page.items {
                #expect(item.previous == end, "the chain has no hole")
                #expect(item.end > end)
                end = item.end
            }
            items += page.items
        }
    }
}

extension LogItem {
    var previous: Offset {
        switch self {
        case .entry(let entry): entry.previous
        case .skip(let skip): skip.previous
        }
    }
    var end: Offset {
        switch self {
        case .entry(let entry): entry.offset
        case .skip(let skip): skip.to
        }
    }
    var entry: Entry? { if case .entry(let entry) = self { entry } else { nil } }
    var text: String {
        switch self {
        case .entry(let entry): entry.kind == .message ? String(buffer: entry.payload) : "\(entry.kind)"
        case .skip(let skip): "<\(skip.reason)>"
        }
    }
}
