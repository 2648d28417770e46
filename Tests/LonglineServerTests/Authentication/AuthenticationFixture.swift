import Foundation
import Logging
import LonglineServer
import LonglineSession
import LonglineStore
import LonglineWire
import Synchronization

/// 2026-01-01 00:00:00 UTC, in milliseconds since 1970.
let now: UInt64 = 1_767_225_600_000

/// Claims that every check accepts at ``now``.
func goodClaims(
    tenant: String = "acme", user: String = "alice", device: String = "phone", tokenID: String = "token-1",
    loginEpoch: UInt64 = 3, scopes: TokenScopes = .all
) throws -> TokenClaims {
    TokenClaims(
        tenant: try TenantID(tenant), user: try UserID(user), device: try DeviceID(device), loginEpoch: loginEpoch,
        scopes: scopes, tokenID: tokenID, issuedAt: now, expiry: now + 3_600_000)
}

/// Revocations in memory, with the contract of the protocol.
final class FakeRevocations: Revocations {
    private struct State {
        var users: [String: UInt64] = [:]
        var devices: [DeviceKey: UInt64] = [:]
        var tokens: Set<String> = []
        var isBroken = false
    }
    private let state = Mutex(State())

    /// From now on every question fails.
    func breakDown() { state.withLock { $0.isBroken = true } }

    func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations {
        let (generations, isBroken) = state.withLock {
            (
                RevocationGenerations(
                    user: $0.users["\(device.tenant)/\(device.user)"] ?? 0, device: $0.devices[device] ?? 0),
                $0.isBroken
            )
        }
        if isBroken { throw StoreError(.unavailable, message: "broken by the test") }
        return generations
    }
    func revoke(user: UserID, in tenant: TenantID) async throws(StoreError) {
        state.withLock { $0.users["\(tenant)/\(user)", default: 0] += 1 }
    }
    func revoke(device: DeviceKey) async throws(StoreError) { state.withLock { $0.devices[device, default: 0] += 1 } }
    func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError) {
        state.withLock { _ = $0.tokens.insert("\(tenant)/\(token)") }
    }
    func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool {
        state.withLock { $0.tokens.contains("\(tenant)/\(token)") }
    }
}

/// Keeps every line with all of its metadata as text.
final class LogRecorder: Sendable {
    private let recorded = Mutex<[String]>([])
    var lines: [String] { recorded.withLock { $0 } }
    var logger: Logger {
        var logger = Logger(label: "test") { _ in Handler(recorder: self) }
        logger.logLevel = .trace
        return logger
    }

    private struct Handler: LogHandler {
        let recorder: LogRecorder
        var metadata: Logger.Metadata = [:]
        var logLevel: Logger.Level = .trace
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let line = "\(event.message) \(event.metadata ?? [:])"
            recorder.recorded.withLock { $0.append(line) }
        }
    }
}

/// A directory that is gone after `body`.
func withTemporaryDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("longline-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try await body(path)
}

/// The error code that `body` ends with; nil when it ends well.
func authenticationFailure(_ body: () async throws -> Void) async throws -> AuthenticationError.Code? {
    do {
        try await body()
        return nil
    } catch let error as AuthenticationError {
        return error.code
    }
}

/// Base64url without padding.
func base64URL(_ text: String) -> String {
    Data(text.utf8).base64EncodedString()
        .replacingOccurrences(of: "+", with: "-").replacingOccurrences(of: "/", with: "_")
        .replacingOccurrences(of: "=", with: "")
}
