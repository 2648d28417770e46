import ArgumentParser
import Foundation
import LonglineServer

/// The app's own decision about publishes, joins and changes of rooms.
struct AuthorizationOptions: ParsableArguments {
    private static let standard = (
        onFailure: "refuse-for-now", deadline: 2.0, maximumTTL: 300.0, cache: 100_000, inFlight: 256
    )

    @Option(
        help: """
            An address of your backend that is asked about publishes and joins, besides the tokens' scopes: \
            https://host:port/path, or http:// on a private network. docs/server.md says how it is asked.
            """)
    var authorizeURL: String?

    @Option(help: "A file with the certificate authorities, in PEM, that vouch for it, instead of the system's.")
    var authorizeCA: String?

    @Option(
        help: """
            A file with the bearer token that the questions carry, which not everybody may read; or set \
            LONGLINE_AUTHORIZE_TOKEN.
            """)
    var authorizeTokenFile: String?

    @Option(help: "What counts when it does not answer: refuse-for-now, deny or allow.")
    var authorizeOnFailure: String = AuthorizationOptions.standard.onFailure

    @Option(help: ArgumentHelp("How long it may take to answer.", valueName: "seconds"))
    var authorizeDeadline: Double = AuthorizationOptions.standard.deadline

    @Option(
        help: ArgumentHelp(
            "The longest that an answer is remembered, whatever it says; 0: none is.", valueName: "seconds"))
    var authorizeMaximumTTL: Double = AuthorizationOptions.standard.maximumTTL

    @Option(help: ArgumentHelp("How many answers are remembered.", valueName: "answers"))
    var authorizeCache: Int = AuthorizationOptions.standard.cache

    @Option(help: ArgumentHelp("How many questions it is asked at one time.", valueName: "questions"))
    var authorizeInFlight: Int = AuthorizationOptions.standard.inFlight

    private static let failureAnswers: [String: AuthorizationSettings.FailureAnswer] = [
        "refuse-for-now": .refuseForNow, "deny": .deny, "allow": .allow,
    ]

    func validate() throws {
        if authorizeTokenFile != nil, Self.tokenInEnvironment != nil {
            throw ValidationError("--authorize-token-file and LONGLINE_AUTHORIZE_TOKEN exclude each other.")
        }
        guard Self.failureAnswers[authorizeOnFailure] != nil else {
            throw ValidationError("--authorize-on-failure is refuse-for-now, deny or allow.")
        }
        guard (0.001...60).contains(authorizeDeadline) else {
            throw ValidationError("--authorize-deadline has to be 0.001 to 60.")
        }
        guard (0...86_400).contains(authorizeMaximumTTL) else {
            throw ValidationError("--authorize-maximum-ttl has to be 0 to 86400.")
        }
        guard (0...100_000_000).contains(authorizeCache), (1...100_000).contains(authorizeInFlight) else {
            throw ValidationError("--authorize-cache can't be negative, and --authorize-in-flight has to be 1 or more.")
        }
        try refuseWithoutURL()
    }

    /// What says how a backend is asked has no effect where none is.
    private func refuseWithoutURL() throws {
        guard authorizeURL == nil else { return }
        let standard = Self.standard
        let changed = [
            "token-file": authorizeTokenFile != nil, "ca": authorizeCA != nil,
            "on-failure": authorizeOnFailure != standard.onFailure, "deadline": authorizeDeadline != standard.deadline,
            "maximum-ttl": authorizeMaximumTTL != standard.maximumTTL, "cache": authorizeCache != standard.cache,
            "in-flight": authorizeInFlight != standard.inFlight,
        ].filter { $0.value }.keys.sorted()
        guard let first = changed.first else { return }
        let others = changed.dropFirst().map { " and --authorize-\($0)" }.joined()
        throw ValidationError("--authorize-\(first)\(others) \(others.isEmpty ? "goes" : "go") with --authorize-url.")
    }

    private static var tokenInEnvironment: String? {
        ProcessInfo.processInfo.environment[tokenVariable]
    }

    static let tokenVariable = "LONGLINE_AUTHORIZE_TOKEN"

    /// With a token file or LONGLINE_AUTHORIZE_TOKEN set, the token goes along as a bearer token.
    func settings() throws -> AuthorizationSettings? {
        guard let authorizeURL else { return nil }
        let secret = try secret(inEnvironment: Self.tokenInEnvironment)
        let headers = secret.map { [(name: "authorization", value: "Bearer \($0)")] } ?? []
        var settings = AuthorizationSettings(
            try HTTPAuthorizationPolicy(
                url: authorizeURL, headers: headers,
                trust: try authorizeCA.map { .authorities(pem: try ServerCommand.text(ofFile: $0)) } ?? .systemRoots))
        settings.onFailure = Self.failureAnswers[authorizeOnFailure] ?? .refuseForNow
        settings.deadline = .milliseconds(Int64(authorizeDeadline * 1_000))
        settings.maximumTimeToLive = .milliseconds(Int64(authorizeMaximumTTL * 1_000))
        settings.maximumCached = authorizeCache
        settings.maximumInFlight = authorizeInFlight
        return settings
    }

    /// The bearer token that the questions carry; nil: none.
    /// - Parameter variable: what LONGLINE_AUTHORIZE_TOKEN holds.
    func secret(inEnvironment variable: String?) throws -> String? {
        if let authorizeTokenFile { return try Self.token(inFile: authorizeTokenFile) }
        return try variable.map { try Self.token($0, from: Self.tokenVariable) }
    }

    static func token(inFile file: String) throws -> String {
        try SecretFile.check(file, "--authorize-token-file", readers: .group)
        guard let text = try? String(contentsOfFile: file, encoding: .utf8) else {
            throw ValidationError("--authorize-token-file: \(file) can't be read.")
        }
        return try token(text, from: "--authorize-token-file: \(file)")
    }

    /// The token that a text holds, which may end with a line as files and variables often do.
    /// - Parameter place: where the text is, for the error.
    static func token(_ text: String, from place: String) throws -> String {
        let token = text.trimmingCharacters(in: .whitespacesAndNewlines)
        // A header's value: with anything else no question could be sent.
        guard !token.isEmpty, token.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw ValidationError("\(place) holds no token.")
        }
        return token
    }
}
