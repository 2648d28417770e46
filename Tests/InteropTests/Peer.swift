import Foundation
import LonglineTestKit
import Synchronization

/// What a command to a peer process is made of.
enum Argument: Encodable, Sendable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    case text(String)
    case number(Int)
    case flag(Bool)
    case list([Argument])
    case object([String: Argument])

    init(stringLiteral value: String) { self = .text(value) }
    init(integerLiteral value: Int) { self = .number(value) }
    init(booleanLiteral value: Bool) { self = .flag(value) }
    init(arrayLiteral elements: Argument...) { self = .list(elements) }
    init(dictionaryLiteral elements: (String, Argument)...) {
        self = .object(Dictionary(elements, uniquingKeysWith: { $1 }))
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .text(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .flag(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

/// A peer process could not do what it was told.
struct PeerError: Error, CustomStringConvertible {
    let description: String
}

/// A process with an implementation of QUIC by others, driven over its standard input and output: peers/runtime.py has
/// the form of commands and answers. It ends with its standard input, and of itself two minutes after its last command.
final class Peer: Sendable {
    /// What answers a command that returns nothing.
    struct Nothing: Decodable, Sendable {}

    private struct Head: Decodable {
        var id: Int
        var error: String?
    }

    private struct Answer<Result: Decodable>: Decodable {
        var result: Result
    }

    private struct State {
        var nextID = 1
        var waiting: [Int: CheckedContinuation<Data, any Error>] = [:]
        var isOver = false
    }

    let folder: TemporaryFolder

    private let process: Process
    private let input = Pipe()
    private let output = Pipe()
    private let state = Mutex(State())

    /// The next test's: Python takes half a second to begin.
    private static let spare = Mutex<Peer?>(nil)

    private init(script: String = "peer.py", python: URL = Aioquic.python) throws {
        folder = try TemporaryFolder()
        process = Process()
        process.executableURL = python
        process.arguments = ["-B", Aioquic.scripts.appendingPathComponent(script).path]
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        let reader = Thread { [self] in readAnswers() }
        reader.start()
    }

    /// Runs a peer for as long as `body` takes.
    static func run<Result>(_ body: (Peer) async throws -> Result) async throws -> Result {
        let peer = try spare.withLock { spare in
            let ready = try spare ?? Peer()
            spare = try Peer()
            return ready
        }
        defer { peer.end() }
        return try await body(peer)
    }

    /// Runs another script for as long as `body` takes.
    static func run<Result>(
        script: String, python: URL = Aioquic.python, _ body: (Peer) async throws -> Result
    ) async throws -> Result {
        let peer = try Peer(script: script, python: python)
        defer { peer.end() }
        return try await body(peer)
    }

    /// Writes a file that the process can read, and returns its path.
    func file(_ name: String, _ text: String) throws -> String {
        try folder.write(name, text)
    }

    /// Sends a command and waits for its answer.
    func callAsFunction<Result: Decodable & Sendable>(
        _ command: String, _ arguments: [String: Argument] = [:], as type: Result.Type
    ) async throws -> Result {
        let line: Data = try await withCheckedThrowingContinuation { continuation in
            let id: Int? = state.withLock { state in
                guard !state.isOver else { return nil }
                defer { state.nextID += 1 }
                state.waiting[state.nextID] = continuation
                return state.nextID
            }
            guard let id else { return continuation.resume(throwing: Self.over) }
            send(command, arguments, id: id)
        }
        if let error = try JSONDecoder().decode(Head.self, from: line).error {
            throw PeerError(description: "\(command): \(error)")
        }
        return try JSONDecoder().decode(Answer<Result>.self, from: line).result
    }

    /// Sends a command whose answer says no more than that it is done.
    func callAsFunction(_ command: String, _ arguments: [String: Argument] = [:]) async throws {
        _ = try await self(command, arguments, as: Nothing.self)
    }

    private static let over = PeerError(description: "the peer process is over; its standard error may say why")

    private func send(_ command: String, _ arguments: [String: Argument], id: Int) {
        let full = arguments.merging(["id": .number(id), "do": .text(command)]) { $1 }
        do {
            try input.fileHandleForWriting.write(contentsOf: JSONEncoder().encode(full) + Data("\n".utf8))
        } catch {
            state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(throwing: error)
        }
    }

    private func readAnswers() {
        var unread = Data()
        while case let more = output.fileHandleForReading.availableData, !more.isEmpty {
            unread += more
            while let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                let line = Data(unread[..<end])
                unread = Data(unread[(end + 1)...])
                guard let head = try? JSONDecoder().decode(Head.self, from: line) else { continue }
                state.withLock { $0.waiting.removeValue(forKey: head.id) }?.resume(returning: line)
            }
        }
        process.waitUntilExit()
        let left = state.withLock { state in
            state.isOver = true
            defer { state.waiting = [:] }
            return state.waiting.values
        }
        for continuation in left { continuation.resume(throwing: Self.over) }
    }

    /// The process has nothing to put in order: it is killed, and the thread that reads its output takes leave of it.
    private func end() {
        try? input.fileHandleForWriting.close()
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    }
}

/// aioquic, installed by `scripts/test` in a virtual environment of its own.
enum Aioquic {
    /// The root of the package.
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let python = root.appendingPathComponent(".build/interop/bin/python3")
    static let scripts = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("peers")
    /// Written when everything is there.
    private static let mark = root.appendingPathComponent(".build/interop/installed")

    static let isInstalled =
        FileManager.default.isExecutableFile(atPath: python.path) && FileManager.default.fileExists(atPath: mark.path)
    static let howToInstall: String =
        "aioquic is not installed: scripts/test does that where Python 3 and PyPI can be reached"
}
