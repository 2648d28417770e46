import ArgumentParser
import Foundation
import Logging
import LonglineClient
import LonglineKeys
import LonglineWire
import QUICTransport

/// What every command needs that connects to a service.
struct ClientOptions: ParsableArguments {
    @Option(
        name: .long,
        help: """
            Where the service is: host:port, localhost:4433 unless there is --control. Give it several times to try several in \
            order; with --control, they are the last resort.
            """)
    var server: [String] = []

    @Option(
        name: .long,
        help: """
            Ask this control layer where the service is: https://host:port. Its answer is kept with --state. Give it several \
            times to ask several in order.
            """)
    var control: [String] = []

    @Option(
        name: .long,
        help: """
            Believe the control layer only if its answer is signed by a key in this file, a JWKS: as 'longline keys list --jwks' \
            writes it, or the control layer has it at /.well-known/jwks.json.
            """)
    var controlKeys: String?

    @Option(name: .long, help: "A signed token; better in a file or in LONGLINE_TOKEN, where no process list shows it.")
    var token: String?

    @Option(name: .long, help: "A file that holds a signed token; it is read again for every new login.")
    var tokenFile: String?

    @Option(
        name: .long,
        help: """
            A shell command that prints a signed token, run for every new login; it is ended when it takes over a minute. Its \
            standard input is empty, and no other file is open in it: one that asks a person opens /dev/tty, which it can in a \
            terminal's foreground, but not in a chat typed there.
            """)
    var tokenCommand: String?

    @Option(name: .long, help: "Believe certificates of this authority (a PEM file) instead of the system's.")
    var ca: String?

    @Option(
        name: .long,
        help: """
            Believe only this public key: SHA-256 of its SubjectPublicKeyInfo, as 64 hex digits. Give it several times for several.
            """)
    var pin: [String] = []

    @Flag(name: .long, help: "Believe anyone. Whoever is on the path can then read and change everything.")
    var insecure = false

    @Option(name: .long, help: "The name the certificate must carry, when it isn't the host's.")
    var serverName: String?

    @Option(
        name: .long,
        help: """
            A file that keeps the outbox, the cursors and the tickets of one user's device. Without one they are lost at the end.
            """)
    var state: String?

    @Option(name: .long, help: "How much to log to standard error: trace, debug, info, warning, error.")
    var logLevel: String = "error"

    func validate() throws {
        if insecure && (ca != nil || !pin.isEmpty) {
            throw ValidationError("--insecure and --ca or --pin contradict each other.")
        }
        if ca != nil && !pin.isEmpty { throw ValidationError("--ca and --pin exclude each other.") }
        let tokens = [("--token", token), ("--token-file", tokenFile), ("--token-command", tokenCommand)]
            .filter { $0.1 != nil }.map(\.0)
        if tokens.count > 1 { throw ValidationError("\(tokens.joined(separator: " and ")) exclude each other.") }
        for text in server where AccessPoint(text) == nil {
            throw ValidationError("'\(text)' is not host:port.")
        }
        for text in control where !text.hasPrefix("https://") {
            throw ValidationError("'\(text)' is not https://host:port.")
        }
        if controlKeys != nil && control.isEmpty { throw ValidationError("--control-keys goes with --control.") }
        if Logger.Level(rawValue: logLevel) == nil {
            throw ValidationError("'\(logLevel)' is no log level; use trace, debug, info, warning or error.")
        }
        for text in pin where Self.bytes(ofHex: text)?.count != 32 {
            throw ValidationError("'\(text)' is not 64 hex digits.")
        }
    }

    /// A client that is set up as the options say.
    func makeClient(_ change: (inout LonglineClient.Configuration) throws -> Void = { _ in }) throws -> LonglineClient {
        let storage: any ClientStorage =
            if let state { try SQLiteClientStorage(path: state) } else { InMemoryClientStorage() }
        let fixed = server.isEmpty && control.isEmpty ? ["localhost:4433"] : server
        var configuration = LonglineClient.Configuration(
            control: control.map { ControlService(url: $0, serverName: serverName) },
            accessPoints: fixed.compactMap { AccessPoint($0) }, trust: try trust(), storage: storage,
            tokenProvider: try tokenProvider())
        // A ticket that the file has from another user or device would do as well, and no token be asked for.
        let given = try givenToken()
        configuration.user = given.flatMap { TokenSubject.read(from: $0) }
        configuration.device = given.flatMap { TokenSubject.device(from: $0) }
        configuration.controlKeys = try keySet()
        // A file or a command may have another token next time; what was given as it stands never changes.
        configuration.stopsOnRefusedToken = tokenFile == nil && tokenCommand == nil
        configuration.serverName = serverName
        configuration.logger.logLevel = Logger.Level(rawValue: logLevel) ?? .error
        configuration.agent = "longline-cli"
        if let file = try KeyLogFile.fromEnvironment() { configuration.keyLog = { file.append($0) } }
        try change(&configuration)
        return try LonglineClient(configuration: configuration)
    }

    private func trust() throws -> Trust {
        if insecure { return .insecureNoVerification }
        if !pin.isEmpty { return .pinnedPublicKey(pin.compactMap(Self.bytes(ofHex:))) }
        if let ca {
            let pem = try Self.text(ofFile: ca, named: "certificate authority")
            try ConfigurationTrial.authorities(in: ca)
            return .certificateAuthority(pem: pem)
        }
        return .systemRoots
    }

    private func keySet() throws -> JSONWebKeySet? {
        guard let controlKeys else { return nil }
        let text = try Self.text(ofFile: controlKeys, named: "control layer's key")
        do { return try JSONWebKeySet(json: Array(text.utf8)) } catch {
            throw ValidationError("The control layer's key file \(controlKeys) can't be used: \(error)")
        }
    }

    private func tokenProvider() throws -> LonglineClient.TokenProvider {
        if let tokenCommand {
            let command = TokenCommand(tokenCommand)
            return { try await command.token() }
        }
        guard let given = try givenToken() else {
            throw ValidationError(
                "A token is missing. Make one with 'longline token', then give it with --token-file, --token-command, "
                    + "--token or LONGLINE_TOKEN.")
        }
        guard let tokenFile else { return { given } }
        return { Self.trimmed(try Self.text(ofFile: tokenFile, named: "token")) }
    }

    /// The token as it is now; nil: there is none yet, as a command prints it for each login.
    private func givenToken() throws -> String? {
        if let token { return Self.trimmed(token) }
        if let tokenFile { return Self.trimmed(try Self.text(ofFile: tokenFile, named: "token")) }
        guard tokenCommand == nil else { return nil }
        let variable = ProcessInfo.processInfo.environment["LONGLINE_TOKEN"].map(Self.trimmed)
        return variable?.isEmpty == false ? variable : nil
    }

    /// Wherever a token comes from, it may end with a line.
    private static func trimmed(_ token: String) -> String { token.trimmingCharacters(in: .whitespacesAndNewlines) }

    private static func text(ofFile path: String, named name: String) throws -> String {
        do {
            return try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw ValidationError("The \(name) file \(path) can't be read: \(error.localizedDescription)")
        }
    }

    private static func bytes(ofHex text: String) -> [UInt8]? {
        let digits = text.compactMap(\.hexDigitValue)
        guard digits.count == text.count, digits.count.isMultiple(of: 2) else { return nil }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }
}

extension Destination {
    /// Parses `user/NAME`, `room/NAME`, `all/NAME`, or a user's bare name.
    init(argument: String) throws {
        do {
            switch try ChannelID(argument.contains("/") ? argument : "user/\(argument)") {
            case .user(let user): self = .user(user)
            case .room(let room): self = .room(room)
            case .all(let broadcast): self = .all(broadcast)
            }
        } catch {
            throw ValidationError("'\(argument)' is none of user/NAME, room/NAME and all/NAME.")
        }
    }
}
