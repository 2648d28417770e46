public import LonglineKeys
public import LonglineSession
public import LonglineStore
public import LonglineWire
public import QUICEngine

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A server's folder: its store, its secrets, the key of its token signer and a development certificate.
///
/// ```
///   store/                the messages (see SQLiteStore)
///   token.key             signs tokens: whoever reads it can be anybody
///   token-next.key        once it was prepared: signs after the next rotation
///   token-keys.json       once a key was prepared or rotated: the public keys that are trusted, newest first
///   resume-tickets.keys   seals resume tickets
///   tls-tickets.keys      seals TLS tickets
///   endpoint.key          signs address tokens and stateless resets
///   development.pem       a self-signed certificate with its key, while no other is given
///   certificate.pem       the same certificate without the key, for clients that take it as their authority
///   control.sock          takes an operator's requests while a server runs
/// ```
/// Everything is made when it is first asked for, readable by its owner only. Calls block on the disk.
public struct ServerDirectory: Sendable {
    /// The folder.
    public let path: String

    /// Uses a folder, which is made with mode 0700 when it does not exist.
    /// - Throws: ``ServerError/Code/storeUnavailable``, also for an empty path.
    public init(_ path: String) throws(ServerError) {
        // What lies in it is called by its path and a slash: of an empty one, that is the root of all files.
        guard !path.isEmpty else {
            throw ServerError(
                .storeUnavailable, message: "the data folder has no name", advice: "name one, as . for this folder")
        }
        self.path = path
        try Self.make(path)
        if try Self.make(path + "/store") { FolderOwner.takes(folder: path + "/store", in: path) }
    }

    /// Uses a folder that was made before, as for looking at what is in it.
    /// - Throws: ``ServerError/Code/storeUnavailable`` when it does not exist, or is no server's.
    public init(existing path: String) throws(ServerError) {
        let failure = Self.failure(at: path)
        guard failure == 0 else {
            if failure == EACCES { throw Self.unreadable(path) }
            throw ServerError(
                .storeUnavailable, message: "\(path) is no server's data folder",
                advice: "name the folder that a server was started with")
        }
        self.path = path
    }

    /// A server's folder is for its own user only.
    private static func unreadable(_ path: String) -> ServerError {
        ServerError(
            .storeUnavailable, message: "this user may not look into \(path)",
            advice: "run it as the server's own user, with sudo -u for instance")
    }

    /// Whether there is a folder that was made for a server.
    public static func exists(at path: String) -> Bool { failure(at: path) == 0 }

    /// Why there is no server's folder to be seen, as an error of the system; 0: there is.
    private static func failure(at path: String) -> Int32 {
        guard !path.isEmpty else { return ENOENT }
        var status = stat()
        guard stat(path + "/store", &status) == 0 else { return errno }
        return status.st_mode & S_IFMT == S_IFDIR ? 0 : ENOTDIR
    }

    /// Makes a folder and those above it.
    /// - Returns: whether it was not there.
    @discardableResult
    private static func make(_ path: String) throws(ServerError) -> Bool {
        var isNew = false
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        for count in 1...parts.count {
            let folder = parts[..<count].joined(separator: "/")
            guard !folder.isEmpty else { continue }
            isNew = mkdir(folder, 0o700) == 0
            let code = errno
            guard !isNew, code != EEXIST else { continue }
            let above = parts[..<(count - 1)].joined(separator: "/")
            if code == EACCES, !above.isEmpty, access(above, X_OK) != 0 { throw unreadable(above) }
            let reason = String(cString: strerror(code))
            throw ServerError(
                .storeUnavailable, message: "can't make the folder \(folder): \(reason)",
                advice: "name one that this user may write to")
        }
        return isNew
    }

    /// Where the store's files are.
    public var storePath: String { path + "/store" }

    /// Whether a process has the store open, as a server that runs on this folder has.
    package var isInUse: Bool { SQLiteStore.isOpen(at: storePath) }

    /// Where a server on this folder takes operators' requests; nil where the folder's path is too long for a socket's.
    public var controlSocketPath: String? { ServerControl.socketPath(ofFolder: path) }

    /// Reaches the server that runs on this folder.
    /// - Throws: ``ServerError/Code/invalidConfiguration`` where the path is too long.
    public func control() throws(ServerError) -> ServerControl { try ServerControl(folder: path) }

    /// The file in which notifications wait for the webhook.
    public var notificationsPath: String { path + "/notifications.db" }

    /// The key that signs this server's tokens.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``.
    public func signingKey() throws(AuthenticationError) -> SigningKey {
        try SigningKey.loadOrCreate(at: path + "/token.key")
    }

    /// What the server seals with for itself.
    /// - Throws: ``/LonglineKeys/AuthenticationError``, `QUICError`.
    public func secrets() throws -> ServerSecrets {
        try ServerSecrets(directory: path, now: WallClock.milliseconds())
    }

    /// Signs a token with this folder's key.
    /// - Parameters:
    ///   - tenant: the tenant the token is for.
    ///   - user: the user it names.
    ///   - device: the device it names.
    ///   - lifetime: in milliseconds from now.
    ///   - scopes: what its holder may do.
    ///   - loginEpoch: by default the time, so that each token counts as a later login than the ones before.
    ///   - platform: what kind of device it is.
    ///   - generations: those of user and device, as the store has them; a revocation raises them.
    /// - Throws: ``/LonglineKeys/AuthenticationError``.
    public func sign(
        tenant: TenantID, user: UserID, device: DeviceID, lifetime: UInt64, scopes: TokenScopes = .all,
        grants: [ChannelGrant] = [], loginEpoch: UInt64? = nil, platform: DevicePlatform = .unknown,
        generations: RevocationGenerations = RevocationGenerations(user: 0, device: 0)
    ) async throws(AuthenticationError) -> String {
        let now = WallClock.milliseconds()
        let signer = await TokenSigner(key: try signingKey())
        return try await signer.sign(
            TokenClaims(
                tenant: tenant, user: user, device: device, loginEpoch: loginEpoch ?? now / 1000, scopes: scopes,
                grants: grants,
                tokenID: TokenClaims.makeTokenID(), issuedAt: now, expiry: now + lifetime, generations: generations,
                platform: platform))
    }

    // MARK: Development certificate

    /// A self-signed certificate and the pin that clients believe it by.
    public struct DevelopmentIdentity: Sendable {
        /// Certificate and key.
        public let credentials: TLSServerCredentials
        /// SHA-256 of the public key (SubjectPublicKeyInfo).
        public let pin: [UInt8]
        /// The pin as 64 hexadecimal digits.
        public var pinText: String { pin.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
    }

    /// Ten years: it is believed by its pin, never by its dates.
    private static let certificateDays = 3650
    private static let certificateStart = "-----BEGIN CERTIFICATE-----"
    private static let keyStart = "-----BEGIN PRIVATE KEY-----"

    /// The folder's self-signed certificate.
    /// - Parameter names: DNS names and numeric addresses, for the certificate when it has to be made.
    /// - Throws: ``/LonglineKeys/AuthenticationError``, `QUICError`.
    public func developmentIdentity(names: [String]) throws -> DevelopmentIdentity {
        let file = path + "/development.pem"
        if let bytes = try PrivateFile.read(file, limit: 64 * 1024) {
            let identity = try Self.parse(bytes, file)
            // A start that was cut off may have left it unwritten. Clients that go by the pin need it not: no reason to stop.
            if access(certificatePath, F_OK) != 0 {
                try? PrivateFile.replace(certificatePath, Array(identity.credentials.certificateChainPEM.utf8))
            }
            return identity
        }
        let made = try DevelopmentCertificate.generate(
            names: names, validDays: Self.certificateDays, now: WallClock.milliseconds() / 1000)
        let identity = DevelopmentIdentity(credentials: made.credentials, pin: made.publicKeySHA256)
        let text = "\(identity.pinText)\n\(made.certificatePEM)\n\(made.privateKeyPEM)\n"
        guard try PrivateFile.create(file, Array(text.utf8)) else {
            // Another process was first.
            return try Self.parse(try PrivateFile.read(file, limit: 64 * 1024) ?? [], file)
        }
        try PrivateFile.replace(certificatePath, Array(made.certificatePEM.utf8))
        return identity
    }

    private var certificatePath: String { path + "/certificate.pem" }

    private static func parse(_ bytes: [UInt8], _ file: String) throws(AuthenticationError) -> DevelopmentIdentity {
        let text = String(decoding: bytes, as: UTF8.self)
        let digits = text.prefix { $0 != "\n" }.compactMap(\.hexDigitValue)
        guard digits.count == 64, let certificate = text.firstRange(of: certificateStart),
            let key = text.firstRange(of: keyStart), certificate.lowerBound < key.lowerBound
        else {
            throw AuthenticationError(
                .keyUnusable, "\(file) is not a development certificate",
                advice: "move it away: a new one is made, and clients need its new pin")
        }
        return DevelopmentIdentity(
            credentials: TLSServerCredentials(
                certificateChainPEM: String(text[certificate.lowerBound..<key.lowerBound]),
                privateKeyPEM: String(text[key.lowerBound...])),
            pin: stride(from: 0, to: 64, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) })
    }
}
