import Logging
public import LonglineKeys

/// Where the keys come from that tokens are verified with, when they may change while the server runs.
///
/// A server asks when it starts, then every ``interval``, and when it is told to (``LonglineServer/reloadTokenKeys()``).
/// ``KeySetFile`` and ``KeySetAddress`` are sources.
public protocol TokenKeySource: Sendable {
    /// What log lines call it: a path, an address.
    var name: String { get }

    /// How often a server asks for changes, unless ``LonglineServer/Configuration/tokenKeyInterval`` says it; 1 second at least, by
    /// default 5.
    var interval: Duration { get }

    /// All keys that are trusted now. While one key replaces another: both.
    ///
    /// Its task is cancelled when it takes longer than ``LonglineServer/Configuration/tokenKeyDeadline``; a source that goes on all
    /// the same isn't asked again before it returns.
    /// - Throws: when they can't be told; a server goes on with the keys it has.
    func keys() async throws -> [VerificationKey]
}

extension TokenKeySource {
    /// Every 5 seconds, as fits what is on this machine.
    public var interval: Duration { .seconds(5) }
}

/// A JWKS in a file (RFC 7517 section 5); see ``/LonglineKeys/JSONWebKeySet``.
///
/// Replace the file by renaming another over it: one that is written in place may be read half.
public struct KeySetFile: TokenKeySource {
    /// The file.
    public let path: String

    /// A key set at this path.
    public init(path: String) { self.path = path }

    public var name: String { path }

    /// Reads the file. Blocks on the disk for a moment.
    public func keys() async throws -> [VerificationKey] {
        guard let bytes = try PrivateFile.readPublic(path, limit: JSONWebKeySet.maximumBytes) else {
            throw AuthenticationError(.keyUnusable, "\(path) does not exist", advice: "put a JWKS there")
        }
        return try JSONWebKeySet(json: bytes).keys
    }
}

/// Keeps an authenticator's keys as its sources have them.
///
/// ```
///   sources ──keys(), at the same time──▶ all together ──if they changed──▶ a new verifier
///      └── fails, or takes too long: that source's last keys stay, and the log says so once
/// ```
actor TokenKeyring {
    private let fixed: [VerificationKey]
    private let sources: [any TokenKeySource]
    private let deadline: Duration
    private let makeVerifier: @Sendable ([VerificationKey]) async -> TokenVerifier
    private let logger: Logger
    /// The last question to each source.
    private var reloading: [Int: Task<(any Error)?, Never>] = [:]
    private var applying: Task<Void, Never>?
    private var last: [[VerificationKey]]
    private var failures: [String?]
    /// Times that a source failed.
    private(set) var failed: UInt64 = 0
    /// Sources that failed when they were asked last.
    var failing: Int { failures.count { $0 != nil } }
    /// Questions that the sources did not answer yet.
    private var asking: [Int: Task<[VerificationKey], any Error>] = [:]
    private var current: [String: String] = [:]

    /// - Parameters:
    ///   - fixed: keys that never change.
    ///   - sources: those that may.
    ///   - deadline: how long a source may take.
    ///   - logger: told of changes and failures.
    ///   - makeVerifier: makes a verifier of all keys.
    init(
        fixed: [VerificationKey], sources: [any TokenKeySource], deadline: Duration = .seconds(10), logger: Logger,
        makeVerifier: @escaping @Sendable ([VerificationKey]) async -> TokenVerifier
    ) {
        self.fixed = fixed
        self.sources = sources
        self.deadline = deadline
        self.logger = logger
        self.makeVerifier = makeVerifier
        last = sources.map { _ in [] }
        failures = sources.map { _ in nil }
    }

    /// Asks every source for the first time.
    /// - Throws: what the first source threw that failed.
    func start() async throws -> TokenVerifier {
        for index in sources.indices { last[index] = try await ask(index) }
        current = Self.names(all)
        return await makeVerifier(all)
    }

    /// Whether one of the sources is the server's folder.
    nonisolated var hasFolder: Bool { sources.contains { $0 is DirectoryKeys } }

    /// Asks sources again, and gives the authenticator what they have.
    /// - Parameter onlyFolder: asks the server's folder, and nobody that may be far away.
    /// - Returns: what went wrong, if something did.
    func reload(_ authenticator: Authenticator, onlyFolder: Bool = false) async -> (any Error)? {
        await reload(sources.indices.filter { !onlyFolder || sources[$0] is DirectoryKeys }, authenticator)
    }

    private func reload(_ indices: [Int], _ authenticator: Authenticator) async -> (any Error)? {
        let questions = indices.map { question($0) }
        var failure: (any Error)?
        for question in questions { failure = await question.value ?? failure }
        // One after another, so that what was read last is what stays.
        let before = applying
        let task = Task {
            await before?.value
            await self.apply(to: authenticator)
        }
        applying = task
        await task.value
        return failure
    }

    /// Asks each source again and again, until it is cancelled.
    /// - Parameter interval: of every source; nil: of each its own.
    func run(every interval: Duration?, _ authenticator: Authenticator) async {
        await withTaskGroup(of: Void.self) { group in
            for index in sources.indices {
                let pause = interval ?? sources[index].interval
                group.addTask {
                    while (try? await Task.sleep(for: pause)) != nil { _ = await self.reload([index], authenticator) }
                }
            }
        }
    }

    /// Asks one source, after what was asked before.
    /// - Returns: a task with what went wrong.
    private func question(_ index: Int) -> Task<(any Error)?, Never> {
        let before = reloading[index]
        let task = Task {
            _ = await before?.value
            return await self.read(index)
        }
        reloading[index] = task
        return task
    }

    private func read(_ index: Int) async -> (any Error)? {
        do {
            last[index] = try await ask(index)
            failures[index] = nil
            return nil
        } catch {
            failed += 1
            // Said once, not every few seconds.
            if failures[index] != "\(error)" {
                logger.error(
                    "token keys not reloaded: the old ones stay",
                    metadata: ["source": "\(sources[index].name)", "error": "\(error)"])
            }
            failures[index] = "\(error)"
            return error
        }
    }

    private func apply(to authenticator: Authenticator) async {
        let next = Self.names(all)
        guard next != current else { return }
        let (added, removed) = (next.keys.filter { current[$0] != next[$0] }, current.keys.filter { next[$0] == nil })
        logger.notice(
            "token keys changed",
            metadata: ["added": "\(added.sorted())", "removed": "\(removed.sorted())", "trusted": "\(next.count)"])
        current = next
        authenticator.replaceVerifier(await makeVerifier(all))
    }

    /// Asks a source; one that hangs holds up nobody else.
    private func ask(_ index: Int) async throws -> [VerificationKey] {
        guard asking[index] == nil else {
            throw AuthenticationError(.keyUnusable, "the source did not answer the question before")
        }
        let source = sources[index]
        let task = Task { try await source.keys() }
        asking[index] = task
        do {
            if let keys = try await task.value(within: deadline) {
                asking[index] = nil
                return keys
            }
        } catch {
            asking[index] = nil
            throw error
        }
        task.cancel()
        Task {
            _ = await task.result
            self.asking[index] = nil
        }
        throw AuthenticationError(.keyUnusable, "the source did not answer in \(deadline)")
    }

    /// All keys; of two with one ID the first counts.
    private var all: [VerificationKey] {
        var seen: Set<String> = []
        return (fixed + last.flatMap { $0 }).filter { seen.insert($0.keyID).inserted }
    }

    private static func names(_ keys: [VerificationKey]) -> [String: String] {
        Dictionary(keys.map { ($0.keyID, $0.pem) }) { first, _ in first }
    }
}
