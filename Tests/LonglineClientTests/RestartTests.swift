import Foundation
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import LonglineClient

/// What a later process of the app is told about a message, when the earlier one ended without a word at some point of its way.
@Suite("Send states across a restart", .timeLimit(.minutes(1)))
struct RestartTests {
    enum Kind: CaseIterable, Sendable {
        case alone, shared

        func open(_ path: String) throws -> any ClientStorage {
            switch self {
            case .alone: try SQLiteClientStorage(path: path)
            case .shared: try SharedClientStorage(path: path, pollInterval: .milliseconds(10))
            }
        }
    }

    enum Case: CaseIterable, Sendable {
        case queued, sent, acknowledged, refused, expired, outcomeUnknown

        var refusal: RefusalCode? {
            switch self {
            case .queued, .sent, .acknowledged: nil
            case .refused: .forbidden
            case .expired: .expired
            case .outcomeUnknown: .outcomeUnknown
            }
        }

        func matches(_ state: SendState?) -> Bool {
            switch (self, state) {
            case (.queued, .queued), (.sent, .sent), (.acknowledged, .acknowledged), (.refused, .refused(.forbidden)),
                (.expired, .expired), (.outcomeUnknown, .outcomeUnknown):
                true
            default: false
            }
        }
    }

    /// What is on the disk at this moment, elsewhere: what the next process finds when this one ends now.
    private func image(_ path: String, in directory: TemporaryFolder) throws -> String {
        let copy = directory.file("image.sqlite")
        for suffix in ["", "-wal"] where FileManager.default.fileExists(atPath: path + suffix) {
            try FileManager.default.copyItem(atPath: path + suffix, toPath: copy + suffix)
        }
        return copy
    }

    /// Sends a message and brings it as far as the case says; durably.
    private func send(_ wanted: Case, _ harness: ClientHarness) async throws -> SendReceipt {
        if wanted == .queued { return try await harness.client.send("no", to: .user("bob")) }
        harness.service.state.withLock { state in
            state.refusedPrefix = wanted.refusal == nil ? nil : "no"
            state.refusedCode = wanted.refusal ?? .forbidden
            if wanted == .sent {
                state.cutIn = 1
                let failure = ClientError(.connectFailed, message: "no network")
                state.answers = [.accept] + Array(repeating: .fail(failure), count: 100_000)
            }
        }
        try await harness.client.connect()
        let receipt = try await harness.client.send("no", to: .user("bob"))
        for await state in receipt.states where wanted.matches(state) { break }
        try await harness.settle()
        return receipt
    }

    @Test("each state is there after a crash, and the later process goes on from it", arguments: Kind.allCases)
    func restarted(kind: Kind) async throws {
        for wanted in Case.allCases {
            let directory = try TemporaryFolder()
            let path = directory.file("client.sqlite")
            let first = try ClientHarness(storage: try kind.open(path))
            let send = try await send(wanted, first).send
            let second = try ClientHarness(storage: try kind.open(try image(path, in: directory)), seed: 2)
            let status = try #require(try await second.client.status(of: send), "\(wanted)")
            #expect(wanted.matches(status.state), "\(wanted): \(status.state)")
            #expect(status.channel.description == "user/alice" && status.recipient?.description == "bob")
            let receipt = try #require(try await second.client.receipt(for: send))
            #expect(wanted.matches(receipt.state), "\(wanted): \(receipt.state)")
            #expect(try await second.client.outbox().map(\.send) == (status.state.isFinal ? [] : [send]))
            switch wanted {
            case .queued:
                #expect(status.isCancellable)
                fallthrough
            case .sent:
                try await second.client.connect()
                #expect(try await receipt.acknowledged().id == 1)
            case .acknowledged: #expect(try await receipt.acknowledged().id == 1)
            case .refused, .expired, .outcomeUnknown:
                let error = await #expect(throws: ClientError.self) { try await receipt.acknowledged() }
                #expect(error?.refusal == wanted.refusal)
                #expect(error?.code == (wanted == .outcomeUnknown ? .outcomeUnknown : .refused))
            }
            for harness in [first, second] { await harness.client.disconnect() }
        }
    }

    @Test("a crash between the answer and its write costs the answer, which the service then repeats")
    func answerNotWritten() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let first = try ClientHarness(storage: try Kind.alone.open(path))
        let receipt = try await send(.sent, first)
        let before = try image(path, in: directory)
        first.service.state.withLock { $0.answers = [] }
        let published = try await receipt.acknowledged()
        await first.client.disconnect()
        // The later process finds the file as it was before the answer, and the service the message as it was entered.
        let storage = try Kind.alone.open(before)
        var configuration = first.client.core.configuration
        configuration.storage = storage
        let second = try LonglineClient(
            configuration: configuration, loop: MultiThreadedEventLoopGroup.singleton.next(), clock: .system,
            connector: first.service, random: { SeededRandom(seed: 2) })
        let again = try #require(try await second.receipt(for: receipt.send))
        #expect(again.state == .sent)
        try await second.connect()
        #expect(try await again.acknowledged() == published)
        #expect(first.service.state.withLock { $0.entered.count } == 1)
        await second.disconnect()
    }
}
