import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// What a service that refuses for now says of the next try.
@Suite("Refusals for now", .timeLimit(.minutes(1)))
struct RetryAfterTests {
    @Test("a refused list of conversations says when another try is worth it, as far as the service does")
    func conversations() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let refusals: [(code: RefusalCode, retryAfter: UInt64, advice: String)] = [
            (.overloaded, 1_500, "ask again in 1500 ms"), (.overloaded, 0, "ask again later"), (.forbidden, 0, ""),
        ]
        for (code, retryAfter, advice) in refusals {
            let asking = Task { try await harness.client.conversations() }
            var request: UInt64?
            while request == nil {
                await Task.yield()
                request = harness.service.state.withLock { state in
                    defer { state.frames = [] }
                    for case .conversations(let asked) in state.frames { return asked.request }
                    return nil
                }
            }
            let number = try #require(request)
            harness.service.send(
                .conversationsPage(ConversationsPage(request: number, refusal: code, retryAfter: retryAfter)))
            let error = await #expect(throws: ClientError.self) { try await asking.value }
            #expect(error?.refusal == code)
            #expect(error?.retryAfter == (retryAfter > 0 ? .milliseconds(1_500) : nil))
            #expect(error?.advice == advice)
        }
        await harness.client.disconnect()
    }

    @Test("so does a refused erasure of the account")
    func erasure() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let refused = ErasureRefused(code: .overloaded, retryAfter: 2_000)
        harness.service.state.withLock { $0.erasureAnswer = .erasureRefused(refused) }
        let client = harness.client
        let error = await #expect(throws: ClientError.self) { try await client.eraseAccount() }
        #expect(error?.refusal == .overloaded && error?.retryAfter == .seconds(2))
        await client.disconnect()
    }
}
