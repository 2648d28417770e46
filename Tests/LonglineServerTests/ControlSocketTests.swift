import Foundation
import Logging
import LonglineLinks
import LonglineStore
import LonglineWire
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import LonglineServer

/// What an operator's process says to a running server.
@Suite(.timeLimit(.minutes(1))) struct ControlSocketTests {
    private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// A socket in a folder of its own.
    private func withSocket(
        answer: @escaping ControlSocket.Answer, _ body: (String) async throws -> Void
    ) async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/control.sock"
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let socket = try await ControlSocket.bind(path, group: group, logger: silent, answer: answer)
            var failure: (any Error)?
            do { try await body(path) } catch { failure = error }
            await socket.shutDown()
            #expect(!FileManager.default.fileExists(atPath: path))
            try await group.shutdownGracefully()
            if let failure { throw failure }
        }
    }

    @Test func aRequestArrivesWholeAndItsAnswerComesBack() async throws {
        let asked = Mutex<[ControlRequest]>([])
        try await withSocket { request in
            asked.withLock { $0.append(request) }
            return ControlAnswer(userGeneration: 3, deviceGeneration: 4)
        } _: { path in
            let control = ServerControl(path: path)
            let device = DeviceKey(
                tenant: try TenantID("acme"), user: try UserID("ann"), device: try DeviceID("phone"))
            #expect(try await control.generations(of: device) == RevocationGenerations(user: 3, device: 4))
            try await control.revoke(token: "t", in: device.tenant, until: 17)
        }
        let requests = asked.withLock { $0 }
        #expect(requests.map(\.operation) == [.generations, .revokeToken])
        #expect(requests.first?.device == "phone" && requests.last?.token == "t" && requests.last?.until == 17)
    }

    @Test func whatAnOperatorAsksOfSessionsArrivesWholeAndItsAnswerComesBack() async throws {
        let asked = Mutex<[ControlRequest]>([])
        let one = SessionInfo(
            session: .max, device: try DeviceID("phone"), platform: .unknown, loginEpoch: 7, transport: .webSocket,
            remoteAddress: "[::1]:9", connectedAt: 17, agent: "a \"b\" \u{1f600}")
        let about = ServerStatus(
            version: "1", uptime: 2, addresses: ["[::1]:3"], connections: 4, sessions: 5, published: 6, delivered: .max,
            drainRate: 8)
        try await withSocket { request in
            asked.withLock { $0.append(request) }
            return switch request.operation {
            case .sessions:
                ControlAnswer(
                    sessions: Array(repeating: SessionRecord(one), count: ControlAnswer.maximumSessions), count: 501)
            case .status: ControlAnswer(status: about)
            case .drain: ControlAnswer(remaining: 9)
            case .disconnect where request.user == "new": ControlAnswer()
            default: ControlAnswer(count: 10)
            }
        } _: { path in
            let control = ServerControl(path: path)
            let (user, tenant) = (try UserID("ann"), try TenantID("acme"))
            let (sessions, count) = try await control.sessions(of: user, in: tenant)
            #expect(sessions == Array(repeating: one, count: ControlAnswer.maximumSessions) && count == 501)
            #expect(try await control.status() == about)
            #expect(try await control.drain(rate: 3, to: "other:1") == 9)
            #expect(try await control.disconnect(user: user, in: tenant, code: .evicted, reason: "so") == 10)
            // Of a version that answers something else.
            let error = await #expect(throws: ServerError.self) {
                try await control.disconnect(user: try UserID("new"), in: tenant)
            }
            #expect(error?.code == .requestFailed)
        }
        let requests = asked.withLock { $0 }
        #expect(requests.map(\.operation) == [.sessions, .status, .drain, .disconnect, .disconnect])
        #expect(requests[2].rate == 3 && requests[2].accessPoint == "other:1")
        #expect(requests[3].reason == "so" && requests[3].code == CloseCode.evicted.rawValue)
    }

    @Test func anErasureIsAskedForUntilItIsDone() async throws {
        let asked = Mutex<[ControlRequest]>([])
        try await withSocket { request in
            let count = asked.withLock { asked in
                asked.append(request)
                return asked.count
            }
            return ControlAnswer(isDone: count == 3)
        } _: { path in
            try await ServerControl(path: path).erase(user: UserID("ann"), in: TenantID("acme"))
        }
        let requests = asked.withLock { $0 }
        #expect(requests.map(\.operation) == [.eraseUser, .eraseUser, .eraseUser])
        #expect(requests.allSatisfy { $0.user == "ann" && $0.tenant == "acme" && $0.device == nil })
    }

    @Test func anErasureGoesOnWithoutWhoAskedAndIsOneForAll() async throws {
        let erasures = Erasures()
        let user = UserKey(tenant: try TenantID("acme"), user: try UserID("ann"))
        let runs = Mutex(0)
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        let body: @Sendable () async throws -> Void = {
            runs.withLock { $0 += 1 }
            for await _ in gate {}
        }
        #expect(try await erasures.join(user, body).isDone(within: .milliseconds(10)) == false)
        #expect(try await erasures.join(user, body).isDone(within: .milliseconds(10)) == false)
        let last = erasures.join(user, body)
        open.finish()
        #expect(try await last.isDone(within: .seconds(60)))
        // Once more for all who joined: what they resolved may have been behind the first one's last look.
        #expect(runs.withLock { $0 } == 2)
        // A failure is told to who waits, and the next one begins anew.
        struct Failure: Error {}
        await #expect(throws: Failure.self) {
            try await erasures.join(user) { throw Failure() }.isDone(within: .seconds(60))
        }
        #expect(try await erasures.join(user) {}.isDone(within: .seconds(60)))
    }

    @Test func whoAsksAgainAndAgainLeavesNothingWhileAnErasureGoesOn() async throws {
        let erasures = Erasures()
        let user = UserKey(tenant: try TenantID("acme"), user: try UserID("ann"))
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        let erasure = erasures.join(user) { for await _ in gate {} }
        for _ in 0..<5 {
            #expect(try await erasures.join(user) {}.isDone(within: .milliseconds(1)) == false)
            #expect(erasure.waiterCount == 0)
        }
        let waiting = Task { try await erasure.isDone(within: .seconds(60)) }
        while erasure.waiterCount == 0 { await Task.yield() }
        open.finish()
        #expect(try await waiting.value)
        #expect(erasure.waiterCount == 0)
        #expect(try await erasure.isDone(within: .zero), "who asks later is told at once")
    }

    @Test func onlyItsOwnerMayOpenIt() async throws {
        try await withSocket { _ in
            ControlAnswer()
        } _: { path in
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
        }
    }

    @Test func whatAnEarlierServerLeftIsReplacedAndNothingElse() async throws {
        try await withTemporaryDirectory { folder in
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let file = folder + "/notes"
            let link = folder + "/link"
            try Data("kept".utf8).write(to: URL(fileURLWithPath: file))
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: folder + "/nowhere")
            for path in [file, link] {
                let error = await #expect(throws: ServerError.self) {
                    _ = try await ControlSocket.bind(path, group: group, logger: silent) { _ in ControlAnswer() }
                }
                #expect(error?.code == .addressUnavailable)
            }
            #expect(FileManager.default.contents(atPath: file) == Data("kept".utf8))
            // A server that was killed leaves its socket.
            let left = try await ControlSocket.bind(folder + "/a.sock", group: group, logger: silent) { _ in
                ControlAnswer()
            }
            try FileManager.default.moveItem(atPath: folder + "/a.sock", toPath: folder + "/b.sock")
            let next = try await ControlSocket.bind(folder + "/b.sock", group: group, logger: silent) { _ in
                ControlAnswer(error: "the new one")
            }
            let error = await #expect(throws: ServerError.self) {
                try await ServerControl(path: folder + "/b.sock").revoke(user: UserID("ann"), in: TenantID("acme"))
            }
            #expect(error?.message == "the new one")
            await left.shutDown()
            await next.shutDown()
            try await group.shutdownGracefully()
        }
    }

    @Test func anErrorComesBackWithItsAdvice() async throws {
        try await withSocket { _ in
            ControlAnswer(error: "no", advice: "ask later")
        } _: { path in
            let error = await #expect(throws: ServerError.self) {
                try await ServerControl(path: path).revoke(user: try UserID("ann"), in: try TenantID("acme"))
            }
            #expect(error?.code == .requestFailed && error?.message == "no" && error?.advice == "ask later")
        }
    }

    @Test(arguments: ["{}\n", "no json\n", "{\"operation\":\"dance\",\"tenant\":\"acme\"}\n"])
    func whatIsNoRequestIsAnsweredWithAnError(line: String) async throws {
        try await withSocket { _ in
            ControlAnswer()
        } _: { path in
            let text = try await exchange(path, line)
            #expect(text.contains("not a request"))
        }
    }

    @Test func anEndlessRequestIsCutOff() async throws {
        try await withSocket { _ in
            ControlAnswer()
        } _: { path in
            let text = try await exchange(path, String(repeating: "x", count: 4 * ControlSocket.maximumRequest))
            #expect(text.isEmpty)
        }
    }

    @Test func withoutAServerItSaysSo() async throws {
        try await withTemporaryDirectory { folder in
            let nowhere = folder + "/nowhere"
            let control = try ServerControl(folder: nowhere)
            let error = await #expect(throws: ServerError.self) {
                try await control.revoke(user: try UserID("ann"), in: try TenantID("acme"))
            }
            #expect(error?.code == .notRunning)
            #expect(error?.description.contains("control.sock: No such file or directory (start it") == true)
            #expect(!FileManager.default.fileExists(atPath: nowhere))
            #expect(throws: ServerError.self) { try ServerControl(folder: String(repeating: "x", count: 100)) }
        }
    }

    /// A variable that is not set, say: the folder would be the root of all files.
    @Test func aFolderWithoutANameIsNone() {
        let uncontrolled = #expect(throws: ServerError.self) { try ServerControl(folder: "") }
        #expect(uncontrolled?.code == .invalidConfiguration)
        #expect(!ServerDirectory.exists(at: ""))
        let unknown = #expect(throws: ServerError.self) { try ServerDirectory(existing: "") }
        #expect(unknown?.code == .storeUnavailable)
        let unmade = #expect(throws: ServerError.self) { try ServerDirectory("") }
        #expect(unmade?.code == .storeUnavailable)
    }

    /// Who rotates a key that was stolen must not be told that no server trusts it.
    @Test func aServerThatDoesNotAnswerIsNotTakenForNone() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/control.sock"
            let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .childChannelInitializer { $0.close() }
                .bind(unixDomainSocketPath: path).get()
            let error = await #expect(throws: ServerError.self) {
                try await ServerControl(path: path).reloadTokenKeys()
            }
            #expect(error?.code == .requestFailed)
            try await listener.close()
        }
    }

    @Test func aSocketLeftBehindIsReplacedAndAnotherFileIsNot() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/control.sock"
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let first = try await ControlSocket.bind(path, group: group, logger: silent) { _ in ControlAnswer() }
            let second = try await ControlSocket.bind(path, group: group, logger: silent) { _ in
                ControlAnswer(userGeneration: 2)
            }
            let device = DeviceKey(
                tenant: try TenantID("acme"), user: try UserID("ann"), device: try DeviceID("phone"))
            #expect(try await ServerControl(path: path).generations(of: device).user == 2)
            await first.shutDown()
            await second.shutDown()
            try Data("mine".utf8).write(to: URL(fileURLWithPath: path))
            await #expect(throws: ServerError.self) {
                _ = try await ControlSocket.bind(path, group: group, logger: silent) { _ in ControlAnswer() }
            }
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "mine")
            let long = folder + "/" + String(repeating: "x", count: 100)
            await #expect(throws: ServerError.self) {
                _ = try await ControlSocket.bind(long, group: group, logger: silent) { _ in ControlAnswer() }
            }
            try await group.shutdownGracefully()
        }
    }

    /// Sends bytes, and collects what comes until the server closes.
    private func exchange(_ path: String, _ text: String) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(unixDomainSocketPath: path) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            try? await outbound.write(ByteBuffer(string: text))
            var answer = ""
            do {
                for try await part in inbound { answer += String(buffer: part) }
            } catch {
                // A server that doesn't read on resets.
            }
            return answer
        }
    }
}
