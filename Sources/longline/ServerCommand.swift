import ArgumentParser
import Foundation
import Logging
import LonglineClient
import LonglineControl
import LonglineServer
import LonglineSettings
import LonglineStore
import LonglineWire
import NIOCore
import QUICEngine
import QUICTransport
import ServiceLifecycle
import UnixSignals

/// Runs a server: the access layer, with the embedded store and the token signer's key in one folder.
struct ServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "server",
        abstract: "Run a server with its embedded store.",
        discussion: """
            Everything the server keeps is in its data folder: messages, the key that 'longline token' signs with, ticket \
            keys and, unless --certificate and --key are given, a self-signed development certificate whose pin is printed.

            SIGTERM and SIGINT stop it in order: clients are told to come back, what is pending is written. A second \
            server can't use the same folder. SIGHUP reads the configuration, certificate, key and token keys again.

            Every option can also be set in a file (--config) or by an environment variable, --log-level for instance as \
            log.level or LONGLINE_LOG_LEVEL; the command line counts most, the file least. 'longline config' says more.

            With the environment variable SSLKEYLOGFILE set, TLS secrets are appended to the file that it names, for \
            reading one's own captures.
            """)

    // Read before the options are: see ServerInvocation.
    @Option(help: "A YAML file with settings; 'longline config' says what is in it.")
    var config: String?

    @Option(help: "A local address to listen on; give it several times for several. 0.0.0.0 or :: stand for all.")
    var host: [String] = ["127.0.0.1"]

    @Option(help: "The UDP port; 0 for a free one.")
    var port: Int = 4433

    @Option(name: [.long, .customLong("data-directory")], help: "The data folder; it is made when it does not exist.")
    var data: String = "longline-data"

    @Option(help: "A tenant that is served; give it several times for several.")
    var tenant: [String] = ["default"]

    @Option(help: "The certificate chain in PEM form. Without one, a self-signed development certificate is used.")
    var certificate: String?

    @Option(help: "The certificate's private key in PEM form.")
    var key: String?

    @OptionGroup var tokenKeys: TokenKeyOptions

    @Flag(
        help: """
            Accept tokens that were issued before the store was restored from a backup, though what was revoked since the \
            backup is not known any more.
            """)
    var acceptCredentialsFromBeforeRestore = false

    @OptionGroup var authorization: AuthorizationOptions

    @OptionGroup var webhookOptions: WebhookOptions

    @OptionGroup var devices: DevicePolicyOptions

    @Option(help: "Event loops; by default one for each core.")
    var eventLoops: Int?

    @Option(
        help: """
            Microseconds that an idle event loop looks into its sockets before it sleeps, where packets come one soon after \
            the other; 0: it sleeps at once.
            """)
    var busyPoll = 50

    @Option(help: "The largest size of the message store in MiB; by default what the disk has.")
    var storeLimit: Int?

    @OptionGroup var limits: LimitOptions

    @OptionGroup var retention: RetentionOptions

    @OptionGroup var controlOptions: ControlOptions

    @OptionGroup var logs: LogOptions

    func validate() throws {
        guard (0...65535).contains(port) else { throw ValidationError("--port has to be 0 to 65535.") }
        guard (certificate == nil) == (key == nil) else {
            throw ValidationError("--certificate and --key belong together.")
        }
        if let eventLoops, !(1...256).contains(eventLoops) {
            throw ValidationError("--event-loops has to be 1 to 256.")
        }
        guard (0...Self.longestBusyPoll).contains(busyPoll) else {
            throw ValidationError("--busy-poll has to be 0 to \(Self.longestBusyPoll).")
        }
        if let storeLimit, !(1...Self.largestStore).contains(storeLimit) {
            throw ValidationError("--store-limit has to be 1 to \(Self.largestStore).")
        }
        for name in tenant { _ = try Name.parse("--tenant", name, TenantID.init) }
        for (index, name) in host.enumerated() {
            let address = try Self.address(name, port: port)
            guard try host[..<index].allSatisfy({ try Self.address($0, port: port) != address }) else {
                throw ValidationError("--host: \(name) comes twice.")
            }
        }
        let limited = try limits.limits().tenants.keys.map { ("--tenant-limit", $0) }
        let ruled = try devices.policies().tenants.keys.map { ("--device-policy", $0) }
        for (option, tenant) in limited + ruled where !tenants.contains(tenant) {
            throw ValidationError("\(option): the tenant \(tenant) is not served.")
        }
    }

    /// Those that are served.
    var tenants: Set<TenantID> { Set(tenant.compactMap { try? TenantID($0) }) }

    /// What to know where the control layer has nothing to tell clients but the addresses that a wildcard stands for.
    /// - Parameter running: what is in force; nil: all that this command says will be. Where a server listens stays until its end,
    ///   whatever its settings say since.
    func accessWarning(
        _ settings: ResolvedSettings, running: [SettingKey: ResolvedSettings.Entry]? = nil
    ) -> SettingProblem? {
        let (key, control) = (SettingKey("host"), SettingKey("control"))
        // Neither has a default that matters here.
        let hosts = running.map { $0[key]?.value.items ?? [] } ?? host
        let isServing = running.map { $0[control]?.value.items.isEmpty == false } ?? !controlOptions.control.isEmpty
        guard isServing, controlOptions.access.accessPoint.isEmpty else { return nil }
        let listening = hosts.compactMap { try? Self.address($0, port: port).ipAddress }
        guard let wildcard = listening.first(where: { $0 == "0.0.0.0" || $0 == "::" }) else { return nil }
        // Where something else is said by now, its place would mislead.
        let said = settings.entries[key]
        let isInForce = running.map { $0[key]?.value == said?.value } ?? true
        return SettingProblem(
            isInForce ? said?.origin : nil, key: "host",
            "for \(wildcard) clients are told every address of this machine: say with access-point where they reach it")
    }

    /// What to know where a backend's token is given, and no backend.
    func authorizationWarning(_ settings: ResolvedSettings) -> SettingProblem? {
        guard authorization.authorizeURL == nil, let token = settings.entries[SettingKey("authorize.token")],
            token.value.items.first?.isEmpty == false
        else { return nil }
        return SettingProblem(token.origin, key: "authorize.token", "nobody is asked: it goes with authorize.url")
    }

    /// In MiB.
    static let largestStore = 1 << 32
    /// Microseconds.
    static let longestBusyPoll = 500

    /// Where the certificate is, when it is not the data folder's own.
    var certificatePaths: CertificateFiles.Paths? {
        guard let certificate, let key else { return nil }
        return CertificateFiles.Paths(certificate: certificate, key: key)
    }

    func run() async throws {
        let hangUps = await UnixSignalsSequence(trapping: .sighup)
        try await serve(ServerInvocation.ofThisProcess.evaluate().settings, hangUps: hangUps)
    }

    /// Runs the server.
    /// - Parameters:
    ///   - settings: what this command has its values from.
    ///   - hangUps: what came since before they were read.
    func serve(_ settings: ResolvedSettings, hangUps: UnixSignalsSequence) async throws {
        let logger = logs.bootstrap("longline.server")
        let invocation = ServerInvocation.ofThisProcess
        let startFiles = StartFiles(settings)
        for warning in settings.warnings { logger.warning("\(warning)") }
        if let warning = accessWarning(settings) { logger.warning("\(warning)") }
        if let warning = authorizationWarning(settings) { logger.warning("\(warning)") }
        let directory = try ServerDirectory(data)
        let files = certificatePaths.map(CertificateFiles.init)
        let identity = try files == nil ? directory.developmentIdentity(names: certificateNames) : nil
        let keyFiles = TokenKeyFiles(tokenKeys.tokenKey)
        let server = LonglineServer(configuration: try configuration(directory, identity, files, keyFiles, logger))
        // First: where the store can't be brought to this version, the version before must still find all as it was.
        try server.prepareStore()
        try Self.eraseNotifications(with: server, directory)
        let control = try controlOptions.control(of: server, directory, logger)
        try await server.start()
        defer { ServiceManager.tell(ServiceManager.stopping) }
        var services: [ServiceGroupConfiguration.ServiceConfiguration] = [
            .init(service: server, successTerminationBehavior: .gracefullyShutdownGroup),
            .init(
                service: ServerReloader(
                    server: server, control: control, hangUps: hangUps, invocation: invocation, settings: settings,
                    files: startFiles, certificate: files,
                    tokenKeys: keyFiles, announcement: announcement(server, identity), logger: logger)),
        ]
        if let control { services.append(.init(service: control)) }
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        try await group.run()
    }

    /// Where there is no webhook any more, what waited for an earlier one goes with the account of whom it is for all the same.
    static func eraseNotifications(with server: LonglineServer, _ directory: ServerDirectory) throws {
        let path = directory.notificationsPath
        guard server.configuration.webhooks == nil, FileManager.default.fileExists(atPath: path) else { return }
        let journal = try NotificationJournal(path: path)
        server.alsoErase { user, tenant in try await journal.forget(user, in: tenant) }
    }

    private func configuration(
        _ directory: ServerDirectory, _ identity: ServerDirectory.DevelopmentIdentity?, _ files: CertificateFiles?,
        _ keyFiles: TokenKeyFiles, _ logger: Logger
    ) throws -> LonglineServer.Configuration {
        let provider: LonglineServer.Configuration.CertificateProvider = {
            if let files { return try files.credentials() }
            guard let identity else {
                throw ServerError(.certificate, message: "there is no certificate")
            }
            return identity.credentials
        }
        var store = SQLiteStoreConfiguration(directory: directory.storePath, logger: logger)
        store.maximumSize = storeLimit.map { $0 * 1024 * 1024 }
        var configuration = LonglineServer.Configuration(
            store: .sqlite(store), certificate: provider,
            tokenKeys: [],
            addresses: try host.map { try Self.address($0, port: port) })
        try tokenKeys.apply(to: &configuration, besides: [directory.tokenKeySource, keyFiles])
        configuration.authorization = try authorization.settings()
        configuration.acceptsCredentialsFromBeforeRestore = acceptCredentialsFromBeforeRestore
        configuration.tenants = tenants
        configuration.secrets = try directory.secrets()
        configuration.controlSocketPath = directory.controlSocketPath
        if configuration.controlSocketPath == nil {
            logger.warning("the data folder's path is too long for a control socket: 'longline revoke' will not work")
        }
        configuration.logger = logger
        if let file = try KeyLogFile.fromEnvironment() {
            logger.warning("SSLKEYLOGFILE is set: whoever has that file can read every connection")
            configuration.keyLog = { file.append($0) }
        }
        if let eventLoops { configuration.eventLoops = eventLoops }
        configuration.busyPoll = .microseconds(busyPoll)
        configuration.limits = try limits.limits()
        configuration.retention = try retention.policy()
        configuration.webhooks = try webhookOptions.webhooks(journalPath: directory.notificationsPath)
        configuration.devicePolicies = try devices.policies()
        return configuration
    }

    /// What says that clients can connect, and how.
    private func announcement(_ server: LonglineServer, _ identity: ServerDirectory.DevelopmentIdentity?) -> String {
        let place = ShellWord.quoted("\(reachable(server.addresses.first, hasCertificate: identity == nil))")
        // Without a pin the certificate's name has to fit, which a numeric address hardly does.
        let trust =
            identity.map { " --pin \($0.pinText)" }
            ?? (controlOptions.access.accessPoint.isEmpty ? " --server-name NAME-IN-CERTIFICATE" : "")
        let places = server.addresses
            .map { AccessPoint(host: $0.ipAddress ?? "?", port: $0.port ?? 0).description }.joined(separator: ", ")
        var text = "longline server ready on \(places)"
        if let identity { text += ", certificate pin \(identity.pinText)" }
        text += """

            Talk to it:
              (umask 077; longline token --data \(ShellWord.quoted(data)) --user alice --device phone > alice.token)
              longline chat --server \(place)\(trust) --token-file alice.token --to user/bob

            """
        return text
    }

    /// Where a client on this machine finds the server. A certificate of one's own is for a name, which the access points have.
    private func reachable(_ address: SocketAddress?, hasCertificate: Bool) -> AccessPoint {
        if hasCertificate, let first = controlOptions.access.accessPoint.first.flatMap({ AccessPoint($0) }) {
            return first
        }
        let standing = ["0.0.0.0": "127.0.0.1", "::": "::1"]
        let name = address?.ipAddress ?? host.first ?? "localhost"
        return AccessPoint(host: standing[name] ?? name, port: address?.port ?? port)
    }

    private var certificateNames: [String] {
        var names = ["localhost", "127.0.0.1", "::1"]
        for name in host + [ProcessInfo.processInfo.hostName] where !names.contains(name) {
            if name != "0.0.0.0" && name != "::" { names.append(name) }
        }
        return names
    }

    private static func address(_ host: String, port: Int) throws -> SocketAddress {
        do { return try SocketAddress(ipAddress: host, port: port) } catch {
            throw ValidationError("--host takes numeric addresses such as 127.0.0.1 or ::1, not '\(host)'.")
        }
    }

    static func text(ofFile path: String) throws -> String {
        if let problem = ReferencedFiles.problem(path) { throw ValidationError("\(problem).") }
        do { return try String(contentsOfFile: path, encoding: .utf8) } catch {
            throw ValidationError("\(path) is not text in UTF-8.")
        }
    }
}
