import FoundationEssentials
public import LonglineStore
public import LonglineWire
import NIOCore
import NIOPosix

/// Tells a server that runs in another process of this machine what to do, by the control socket in its folder.
///
/// Whoever may open the socket is an operator: it has mode 0600. Each call is one connection; methods may be called from
/// anywhere. They throw ``ServerError/Code/notRunning`` when nobody listens there, and ``ServerError/Code/requestFailed`` when the server
/// says so, or says nothing: it may have done what it was asked.
public struct ServerControl: Sendable {
    /// The socket's path.
    public let path: String

    /// Control of the server whose configuration names this path.
    public init(path: String) { self.path = path }

    /// Control of the server that runs on a data folder. The folder is not made when it does not exist.
    /// - Throws: ``ServerError/Code/invalidConfiguration`` where the folder's path is empty, or too long for a socket's.
    public init(folder: String) throws(ServerError) {
        guard !folder.isEmpty else {
            throw ServerError(
                .invalidConfiguration, message: "the data folder has no name", advice: "name one, as . for this folder")
        }
        guard let path = Self.socketPath(ofFolder: folder) else {
            throw ServerError(
                .invalidConfiguration, message: "\(folder) is too long a path for a control socket",
                advice: "name the folder by a relative path, or by a link with a shorter one")
        }
        self.path = path
    }

    static func socketPath(ofFolder folder: String) -> String? {
        let socket = folder + "/control.sock"
        return socket.utf8.count <= ControlSocket.maximumPath ? socket : nil
    }

    /// Shuts a user out: see ``LonglineServer/revoke(user:in:)``.
    public func revoke(user: UserID, in tenant: TenantID) async throws(ServerError) {
        _ = try await ask(
            ControlRequest(operation: .revokeUser, tenant: tenant.description, user: user.description))
    }

    /// Shuts a device out: see ``LonglineServer/revoke(device:)``.
    public func revoke(device: DeviceKey) async throws(ServerError) {
        _ = try await ask(request(.revokeDevice, device))
    }

    /// Shuts out one token, by its ID, and the tickets that came from it: see ``LonglineServer/revoke(token:in:until:)``.
    public func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(ServerError) {
        _ = try await ask(
            ControlRequest(operation: .revokeToken, tenant: tenant.description, token: token, until: until))
    }

    /// How often a user and one of its devices were revoked: what a new token of theirs has to carry.
    public func generations(of device: DeviceKey) async throws(ServerError) -> RevocationGenerations {
        let answer = try await ask(request(.generations, device))
        return RevocationGenerations(user: answer.userGeneration ?? 0, device: answer.deviceGeneration ?? 0)
    }

    /// Erases an account: see ``LonglineServer/erase(user:in:)``. Returns when nothing is left, however long that takes; it goes on
    /// when the task is cancelled.
    public func erase(user: UserID, in tenant: TenantID) async throws(ServerError) {
        let request = ControlRequest(operation: .eraseUser, tenant: tenant.description, user: user.description)
        while try await ask(request).isDone != true {
            guard !Task.isCancelled else {
                throw ServerError(
                    .requestFailed, message: "the erasure of \(user) goes on at the server",
                    advice: "ask again to learn whether it is done")
            }
        }
    }

    /// Has the token keys read again, now: see ``LonglineServer/reloadTokenKeys()``. Where the folder's own are among them it waits for
    /// those only: other sources are asked as well, and what goes wrong there is in the server's log.
    public func reloadTokenKeys() async throws(ServerError) {
        _ = try await ask(ControlRequest(operation: .reloadKeys))
    }

    /// What the server is about.
    public func status() async throws(ServerError) -> ServerStatus {
        guard let status = try await ask(ControlRequest(operation: .status)).status else { throw Self.unknownAnswer }
        return status
    }

    /// Who is connected: see ``LonglineServer/sessions(of:in:)``.
    /// - Returns: the oldest 500 sessions, and how many there are.
    public func sessions(
        of user: UserID, in tenant: TenantID
    ) async throws(ServerError) -> (sessions: [SessionInfo], count: Int) {
        let answer = try await ask(
            ControlRequest(operation: .sessions, tenant: tenant.description, user: user.description))
        guard let sessions = answer.sessions, let count = answer.count else { throw Self.unknownAnswer }
        return (sessions.compactMap(\.info), count)
    }

    /// Ends sessions: see ``LonglineServer/disconnect(user:device:in:close:)``.
    /// - Parameters:
    ///   - code: 1000 to 5999.
    ///   - reason: at most 64 characters, without control characters; nil: a general one.
    /// - Returns: how many sessions there were.
    public func disconnect(
        user: UserID, device: DeviceID? = nil, in tenant: TenantID, code: CloseCode = .normal, reason: String? = nil
    ) async throws(ServerError) -> Int {
        let answer = try await ask(
            ControlRequest(
                operation: .disconnect, tenant: tenant.description, user: user.description,
                device: device?.description, code: code.rawValue, reason: reason))
        guard let count = answer.count else { throw Self.unknownAnswer }
        return count
    }

    /// Moves clients away: see ``LonglineServer/drain(rate:to:)``.
    /// - Returns: how many connections are left.
    public func drain(rate: Int, to accessPoint: String? = nil) async throws(ServerError) -> Int {
        let answer = try await ask(ControlRequest(operation: .drain, rate: rate, accessPoint: accessPoint))
        guard let remaining = answer.remaining else { throw Self.unknownAnswer }
        return remaining
    }

    private static var unknownAnswer: ServerError {
        ServerError(
            .requestFailed, message: "the server's answer is not one that is known here",
            advice: "use the same version of longline")
    }

    private func request(_ operation: ControlRequest.Operation, _ device: DeviceKey) -> ControlRequest {
        ControlRequest(
            operation: operation, tenant: device.tenant.description, user: device.user.description,
            device: device.device.description)
    }

    private func ask(_ request: ControlRequest) async throws(ServerError) -> ControlAnswer {
        let channel = try await connect()
        let answer: ControlAnswer
        do {
            let line = try await exchange(
                ByteBuffer(bytes: try JSONEncoder().encode(request) + [UInt8(ascii: "\n")]), over: channel)
            answer = try JSONDecoder().decode(ControlAnswer.self, from: Data(line.readableBytesView))
        } catch {
            // Somebody listens there. What it did of this is not known: nobody may take it for a server that isn't running.
            throw ServerError(
                .requestFailed, message: "the server at \(path) did not answer", cause: error,
                advice: "look at its log, then ask again")
        }
        if let message = answer.error {
            throw ServerError(.requestFailed, message: message, advice: answer.advice ?? "")
        }
        return answer
    }

    /// - Throws: ``ServerError/Code/notRunning`` when nobody listens.
    private func connect() async throws(ServerError) -> NIOAsyncChannel<ByteBuffer, ByteBuffer> {
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(ControlSocket.timeout)
                .connect(unixDomainSocketPath: path) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                    }
                }
        } catch let error as IOError where [EACCES, EPERM, EAGAIN].contains(error.errnoCode) {
            throw ServerError(
                .requestFailed, message: "the server at \(path) can't be asked", cause: error,
                advice: error.errnoCode == EAGAIN ? "try again" : "be the server's own user")
        } catch {
            throw ServerError(
                .notRunning, message: "no server answers at \(path)", cause: error,
                advice: "start it, or name the folder of the one that runs")
        }
    }

    /// Sends a line, and collects what comes until the server closes.
    private func exchange(
        _ request: ByteBuffer, over channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>
    ) async throws -> ByteBuffer {
        let limit = ControlSocket.maximumAnswer
        let timeout = ControlSocket.timeout
        // The server closes after its own time at the latest; this is for one that hangs.
        let deadline = channel.channel.eventLoop.scheduleTask(in: timeout * 2) {
            channel.channel.close(promise: nil)
        }
        defer { deadline.cancel() }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(request)
            var answer = ByteBuffer()
            for try await var part in inbound {
                answer.writeBuffer(&part)
                if answer.readableBytes > limit { break }
            }
            return answer
        }
    }
}
