import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient
@testable import LonglineServer

/// An app meets a service of another time.
@Suite("Versions of the protocol", .timeLimit(.minutes(1)))
struct UpgradeTests {
    @Test(
        "a service that speaks only other versions makes the client ask for a newer app, and stay away; nothing is lost"
    )
    func onlyOthers() async throws {
        let service = try await LiveService { $0.protocolVersions = [3, 2] }
        let client = try service.client("alice")
        let states = client.states
        let waiting = try await client.send("kept", to: .user("bob"))
        let error = await #expect(throws: ClientError.self) { try await client.connect() }
        #expect(
            error?.code == .stopped && error?.closeCode == .versionUnsupported && error?.advice == "upgrade the app")
        guard case .upgradeRequired(.versionUnsupported, let reason) = client.state else {
            Issue.record("the state is \(client.state)")
            return
        }
        #expect(reason == "no protocol version in common")
        // One attempt, and no other was planned.
        var seen: [String] = []
        for await state in states {
            seen.append(state.summary)
            if state.stopError != nil { break }
        }
        #expect(seen.count == 3, "\(seen)")
        #expect(await client.statistics.failedAttempts == 1)
        #expect(waiting.state.isFinal == false)
        // The service speaks this app's version again, beside a newer one.
        await service.stop()
        service.change { $0.protocolVersions = [2, 1] }
        try await service.start()
        try await client.connect()
        _ = try await waiting.acknowledged()
        #expect(try await client.outbox().isEmpty)
        await client.disconnect()
        await service.stop()
    }
}
