import BenchmarkHarness
import Foundation
import NIOCore
import NIOPosix
import PeerHarness
import QUICEngine
import QUICTransport

/// The kinds of handshake.
enum Kind: String, CaseIterable {
    /// With a certificate.
    case full
    /// With a ticket.
    case resumed
    /// With a ticket and a request in the first flight.
    case early
}

/// Connects again and again, some at a time, on the loop.
final class Connector {
    private let client: QUICClient
    private let loop: any EventLoop
    private let port: Int
    private let end: ContinuousClock.Instant
    private let kind: Kind
    private let done: EventLoopPromise<(completed: Int, others: Int)>
    private var configuration: ClientConfiguration
    private var running = 0
    private var completed = 0
    /// Those that failed, or were of another kind: with early data that was refused, for instance.
    private var others = 0

    init(
        kind: Kind, port: Int, configuration: ClientConfiguration, seconds: Double, client: QUICClient,
        loop: any EventLoop, done: EventLoopPromise<(completed: Int, others: Int)>
    ) {
        (self.kind, self.port, self.configuration, self.client, self.loop, self.done) =
            (kind, port, configuration, client, loop, done)
        end = .now + .seconds(seconds)
        self.configuration.earlyData = kind == .early
    }

    func start(concurrency: Int) {
        for _ in 0..<concurrency { connect() }
    }

    private func connect() {
        running += 1
        _ = client.connect(
            host: "127.0.0.1", port: port, configuration: configuration, on: loop,
            handler: OneHandshake(kind: kind) { succeeded in
                self.running -= 1
                if succeeded { self.completed += 1 } else { self.others += 1 }
                if ContinuousClock.now < self.end {
                    self.connect()
                } else if self.running == 0 {
                    self.done.succeed((self.completed, self.others))
                }
            })
    }
}

/// One connection: closes as soon as the handshake is complete.
final class OneHandshake: QUICConnectionHandler {
    private let kind: Kind
    private var ended: ((Bool) -> Void)?
    private var succeeded = false

    init(kind: Kind, ended: @escaping (Bool) -> Void) {
        self.kind = kind
        self.ended = ended
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .earlyDataPossible:
            guard kind == .early, let stream = try? connection.openStream(bidirectional: true) else { return }
            var request = ByteBuffer(repeating: 0x61, count: 100)
            _ = try? connection.write(&request, to: stream)
        case .handshakeCompleted(let info):
            succeeded = info.resumed == (kind != .full) && (info.earlyData == .accepted) == (kind == .early)
            connection.close(code: 0, reason: "")
        case .closed:
            ended?(succeeded)
            ended = nil
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

/// Fetches a ticket.
final class TicketHandler: QUICConnectionHandler {
    private let promise: EventLoopPromise<SessionTicket>

    init(_ promise: EventLoopPromise<SessionTicket>) { self.promise = promise }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .sessionTicket(let ticket):
            promise.succeed(ticket)
            connection.close(code: 0, reason: "")
        case .closed(let reason): promise.fail(ChildProcess.Failure("no ticket: \(reason)"))
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

/// Takes whatever comes.
final class SinkHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .streamReadable(let stream) = event { _ = try? connection.read(stream, consuming: \.count) }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

func runRole(_ role: Role) async throws {
    if role.name == "server" {
        return try await LoopServer.run(transport: TransportSettings(), tickets: true) { _ in SinkHandler() }
    }
    guard role.arguments.count == 4, let kind = Kind(rawValue: role.arguments[0]), let port = Int(role.arguments[1]),
        let seconds = Double(role.arguments[3])
    else { return }
    let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
    let client = QUICClient()
    var configuration = ClientConfiguration(
        serverName: "localhost", applicationProtocols: [role.arguments[2]], verification: .insecureNoVerification)
    configuration.earlyData = false
    if kind != .full {
        let first = configuration
        configuration.sessionTicket = try await loop.flatSubmit {
            let promise = loop.makePromise(of: SessionTicket.self)
            _ = client.connect(
                host: "127.0.0.1", port: port, configuration: first, on: loop, handler: TicketHandler(promise))
            return promise.futureResult
        }.get()
    }
    Role.report("ready")
    _ = readLine()
    let chosen = configuration
    let count = try await loop.flatSubmit {
        let done = loop.makePromise(of: (completed: Int, others: Int).self)
        Connector(
            kind: kind, port: port, configuration: chosen, seconds: seconds, client: client, loop: loop, done: done
        ).start(concurrency: 8)
        return done.futureResult
    }.get()
    Role.report("\(count.completed) \(count.others)")
    exit(0)
}
