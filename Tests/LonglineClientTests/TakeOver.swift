import GRDB
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineClient

/// A message ends in a process that can't write it down any more, and another one takes the outbox over with the message in it: whoever
/// follows it in the first is told how it ends in the second, which sends it.
/// - Parameter end: how it ends in the first.
func takeOver(behind end: (_ first: ClientHarness, SendReceipt) async throws -> Void) async throws {
    let directory = try TemporaryFolder()
    func storage() throws -> SharedClientStorage {
        try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
    }
    let shared = try storage()
    let first = try ClientHarness(storage: shared)
    let receipt = try await first.client.send("a", to: .user("bob"))
    try await first.settle()
    try await shared.fail(true)
    try await end(first, receipt)
    // As when the process sleeps: it can't write any more that it gives the outbox up.
    await first.client.core.yieldOwnership(.standby)
    let second = try ClientHarness(storage: try storage(), seed: 2)
    try await second.client.connect()
    _ = try await receipt.acknowledged()
    #expect(second.service.state.withLock { $0.entered.count } == 1)
    await second.client.disconnect()
}

extension SharedClientStorage {
    /// Whether what this process writes fails from now on.
    func fail(_ fails: Bool) async throws {
        try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA query_only = \(fails ? 1 : 0)") }
    }
}
