import Foundation
import HTTPTypes
import Logging
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import ServiceLifecycle
import Synchronization
import Testing

@testable import LonglineControl

/// A real server with its control layer, on loopback, in a folder of its own.
final class ControlService: Sendable {
    let folder: TemporaryFolder
    let directory: ServerDirectory
    let server: LonglineServer
    let database: ControlDatabase
    let control: LonglineControl
    let keys: APIKeys
    let pin: [UInt8]
    let certificatePEM: String
    let log = RecordedLog()
    private let group: ServiceGroup
    private let running: Task<Void, any Error>

    static let tenant = known { try TenantID("acme") }

    init(
        folder: TemporaryFolder? = nil, maximumStore: Int? = nil, limits: (inout ServerLimits) -> Void = { _ in },
        _ change: (inout LonglineControl.Configuration) -> Void = { _ in }
    ) async throws {
        let folder = try folder ?? TemporaryFolder()
        self.folder = folder
        directory = try ServerDirectory(folder.path)
        let identity = try directory.developmentIdentity(names: ["localhost", "127.0.0.1"])
        pin = identity.pin
        certificatePEM = identity.credentials.certificateChainPEM
        var store = SQLiteStoreConfiguration(directory: directory.storePath, logger: log.logger)
        store.maximumSize = maximumStore
        var configuration = LonglineServer.Configuration(
            store: .sqlite(store), certificate: { identity.credentials }, tokenKeys: [],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.tokenKeySources = [directory.tokenKeySource]
        configuration.tenants = [Self.tenant, try TenantID("other")]
        configuration.secrets = try directory.secrets()
        configuration.eventLoops = 2
        limits(&configuration.limits)
        configuration.logger = log.logger
        server = LonglineServer(configuration: configuration)
        database = try ControlDatabase(directory)
        keys = APIKeys(database)
        var settings = LonglineControl.Configuration(
            certificate: { identity.credentials }, keys: DirectoryControlKeys(directory), database: database)
        settings.addresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
        settings.adminAddresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
        settings.keyInterval = .zero
        settings.logger = log.logger
        change(&settings)
        control = try LonglineControl(server: server, configuration: settings)
        try await server.start()
        group = ServiceGroup(
            configuration: ServiceGroupConfiguration(services: [server, control], logger: log.logger))
        running = Task { [group] in try await group.run() }
        _ = try await control.localAddresses(.admin)
        _ = try await control.localAddresses(.service)
    }

    func stop() async throws {
        await group.triggerGracefulShutdown()
        try await running.value
        try database.close()
    }

    // MARK: Requests

    struct Answer: Sendable {
        var status: Int
        var headers: HTTPFields
        var body: Data

        /// The body's JSON object.
        func object() throws -> [String: Any] {
            try #require(try JSONSerialization.jsonObject(with: body) as? [String: Any])
        }

        func string(_ member: String) throws -> String { try #require(try object()[member] as? String) }

        func array(_ member: String) throws -> [Any] { try #require(try object()[member] as? [Any]) }

        var problem: String? {
            (try? string("type")).map { String($0.dropFirst("urn:longline:problem:".count)) }
        }
    }

    /// Asks the responder, as a listener for HTTP/3 would. Every answer has to be one that the OpenAPI document has.
    func ask(
        _ method: HTTPRequest.Method, _ path: String, key: String? = nil, json: String? = nil,
        headers: HTTPFields = [:], on listener: ControlListener = .admin, from remote: String = "192.0.2.7"
    ) async throws -> Answer {
        var request = HTTPRequest(
            method: method, scheme: "https", authority: "localhost", path: path, headerFields: headers)
        if let key { request.headerFields[.authorization] = "Bearer \(key)" }
        if json != nil, request.headerFields[.contentType] == nil {
            request.headerFields[.contentType] = "application/json"
        }
        let parts = (json ?? "").utf8.isEmpty ? [] : [ByteBuffer(string: json ?? "")]
        let response = await control.responder.respond(
            to: request, body: Parts(parts: parts), from: try SocketAddress(ipAddress: remote, port: 40_000),
            on: listener)
        let body = Mutex(Data())
        _ = try await response.writeBody { part in body.withLock { $0.append(contentsOf: part.readableBytesView) } }
        let answer = Answer(
            status: response.head.status.code, headers: response.head.headerFields, body: body.withLock { $0 })
        try OpenAPIDocument.shared.check(method, path, answer)
        return answer
    }

    /// A body in parts.
    struct Parts: AsyncSequence, Sendable {
        let parts: [ByteBuffer]

        struct AsyncIterator: AsyncIteratorProtocol {
            var left: ArraySlice<ByteBuffer>
            mutating func next() async throws -> ByteBuffer? { left.popFirst() }
        }

        func makeAsyncIterator() -> AsyncIterator { AsyncIterator(left: parts[...]) }
    }

    // MARK: Credentials and clients

    func key(_ rights: Set<APIKeyRight>, tenant: TenantID? = ControlService.tenant) async throws -> String {
        try await keys.create(tenant: tenant, rights: rights, label: "test").key
    }

    /// A key for everything of the tenant.
    func appKey() async throws -> String { try await key([.tokens, .revoke, .publish, .history, .rooms]) }

    func operatorKey() async throws -> String { try await key([.operate], tenant: nil) }

    /// A token that the control layer issued.
    func token(_ user: String, _ device: String = "phone", login: Bool = true, key: String) async throws -> String {
        let answer = try await ask(
            .post, "/v1/tokens", key: key, json: #"{"user":"\#(user)","device":"\#(device)","login":\#(login)}"#)
        #expect(answer.status == 201)
        return try answer.string("token")
    }

    /// A client that connects with tokens of the control layer.
    func client(
        _ user: String, _ device: String = "phone", key: String,
        _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) async throws -> LonglineClient {
        let token = try await token(user, device, key: key)
        let port = try #require(server.addresses.first?.port)
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "127.0.0.1", port: port)], trust: .pinnedPublicKey([pin])
        ) { token }
        configuration.backOff = BackOffPolicy(base: .milliseconds(10), maximum: .milliseconds(100))
        configuration.logger = Logger(label: "client") { _ in SwiftLogNoOpLogHandler() }
        change(&configuration)
        return try LonglineClient(configuration: configuration)
    }
}

/// What a test knows to be well-formed.
func known<Value>(_ make: () throws -> Value) -> Value {
    do { return try make() } catch { preconditionFailure("a test's value: \(error)") }
}

/// Runs a body with a service, and stops it however it ended.
func withControl(
    maximumStore: Int? = nil, limits: (inout ServerLimits) -> Void = { _ in },
    _ change: (inout LonglineControl.Configuration) -> Void = { _ in },
    _ body: (ControlService) async throws -> Void
) async throws {
    let service = try await ControlService(maximumStore: maximumStore, limits: limits, change)
    do { try await body(service) } catch {
        try? await service.stop()
        throw error
    }
    try await service.stop()
}

extension LonglineClient {
    /// Waits for a state.
    func reaches(_ isRight: (ConnectionState) -> Bool) async -> ConnectionState? {
        for await state in states where isRight(state) { return state }
        return nil
    }

    /// Reads so many messages.
    func receive(_ count: Int) async -> [Message] {
        var result: [Message] = []
        for await message in messages {
            message.confirm()
            result.append(message)
            if result.count == count { break }
        }
        return result
    }
}
