import ArgumentParser
import Foundation
import LonglineServer
import LonglineSettings
import LonglineTestKit
import QUICEngine
import Testing

@testable import longline

@Suite("What is wrong with settings is known before a server starts")
struct ConfigurationTrialTests {
    /// Settings that a server would refuse; `@` is the folder with ``files``.
    struct Wrong: Sendable, CustomTestStringConvertible {
        let settings: String
        /// The setting that is named.
        let key: String
        /// What is said of it.
        let says: String

        init(_ settings: String, _ key: String, _ says: String) {
            self.settings = settings
            self.key = key
            self.says = says
        }

        var testDescription: String { settings }
    }

    static let wrong = [
        Wrong("authorize: {url: \"ftp://x\"}", "authorize.url", "does not begin with https://"),
        Wrong("authorize: {url: not a url}", "authorize.url", "has a space"),
        Wrong("authorize: {url: \"https://x/{tenant}\"}", "authorize.url", "has a path or query with characters"),
        Wrong("authorize: {url: \"https://x\", token-file: @/open}", "authorize.token-file", "everybody may read"),
        Wrong("authorize: {url: \"https://x\", token-file: @/empty}", "authorize.token-file", "holds no token"),
        Wrong("authorize: {url: \"https://x\", ca: @/text}", "authorize.ca", "@/text"),
        Wrong("data: @/text", "data", "is a file, and has to be a folder"),
        Wrong("webhooks: @/open", "webhooks", "others may read"),
        Wrong("webhooks: @/text", "webhooks", "is not the JSON"),
        Wrong("webhooks: @/hook-address", "webhooks", "the address of the webhook"),
        Wrong("webhooks: @/hook-secret", "webhooks", "16 bytes"),
        Wrong("webhooks: @/hook-authorities", "webhooks", "there is no file /nope"),
        Wrong("certificate: @/text\nkey: @/key", "certificate", "holds no certificate"),
        Wrong("certificate: @/chain\nkey: @/text", "key", "holds no private key"),
        Wrong("certificate: @/chain\nkey: @/other-key", "certificate", ""),
        Wrong("certificate: @/chain\nkey: @/open-key", "key", "everybody may read @/open-key"),
        Wrong("certificate: @/nope\nkey: @/key", "certificate", "there is no file"),
        Wrong("certificate: @/chain\nkey: @/nope", "key", "there is no file"),
        Wrong("token-key: [@/text]", "token-key", "no Ed25519 or P-256 public key"),
        Wrong("token-key: [@/nope]", "token-key", "there is no file"),
        Wrong("jwks: [@/no-keys]", "jwks", "@/no-keys"),
        Wrong("jwks: [\"https://\"]", "jwks", "has no host"),
        Wrong("jwks: [\"https://x\"]\njwks-ca: @/text", "jwks-ca", "@/text"),
        Wrong("authorize: {url: \"https://x\", deadline: 0.0004}", "authorize.deadline", "out of bounds"),
        Wrong("authorize: {deadline: 3}", "authorize.deadline", "goes with authorize.url"),
        Wrong("authorize: {on-failure: allow}", "authorize.on-failure", "goes with authorize.url"),
        Wrong("authorize: {token-file: @/token}", "authorize.token-file", "goes with authorize.url"),
        Wrong("authorize: {ca: @/chain}", "authorize.ca", "goes with authorize.url"),
        Wrong("webhooks: @/hook-none", "webhooks", "names no endpoint"),
        Wrong("webhooks: @/hook-typo", "webhooks", "no member 'payloads' in 'default'"),
        Wrong("webhooks: @/hook-other", "webhooks", "no member 'defualt' in the file"),
        Wrong("webhooks: @/hook-tenant", "webhooks", "the tenant acme is not served"),
        Wrong("tenant-limit: [\"acme=rate:5\"]", "tenant-limit", "the tenant acme is not served"),
        Wrong("device-policy: [\"acme=one\"]", "device-policy", "the tenant acme is not served"),
        Wrong("device-policy: [one, all]", "device-policy", "comes twice"),
        Wrong("device-policy: [\"default=one\", \"default=all\"]", "device-policy", "comes twice"),
        Wrong("control: [8443]\nadmin: [\"127.0.0.1:8443\"]", "admin", "is listened on already"),
        Wrong("admin: [8443, \"0.0.0.0:8443\"]", "admin", "is listened on already"),
        Wrong("access-point: [\"x:1\"]", "access-point", "goes with control or admin"),
        Wrong("control: [8443]\naccess-point: [\"https://x.example:443\"]", "access-point", "without https://"),
        Wrong("control: [8443]\naccess-point: [\"münchen.example:443\"]", "access-point", "a name in ASCII"),
        Wrong("control: [8443]\naccess-point: [\"x:1\", \"[::1:443\"]", "access-point", "IPv6 in brackets"),
        Wrong("control: [8443]\naccess-point: [\"::1:443\"]", "access-point", "IPv6 in brackets"),
        Wrong("control: [8443]\naccess-point: [\"x.example:443:443\"]", "access-point", "is not host:port"),
        Wrong("migration-unsafe: true", "migration-unsafe", "goes with control or admin"),
        Wrong("inbox: {max-bytes: 99999999999999G}", "inbox.max-bytes", "more than can be counted"),
        Wrong("host: [127.0.0.1, \"::1\", 127.0.0.1]", "host", "comes twice"),
        Wrong("host: []", "host", "the list is empty"),
        Wrong("tenant: []", "tenant", "the list is empty"),
    ]

    private func files() throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        func identity(_ name: String) throws -> ServerDirectory.DevelopmentIdentity {
            try ServerDirectory(folder.path + "/\(name)").developmentIdentity(names: ["localhost"])
        }
        let (first, second) = (try identity("first"), try identity("second"))
        func hook(_ url: String, _ secret: String = String(repeating: "0", count: 32), _ more: String = "") -> String {
            "{\"default\": {\"url\": \"\(url)\", \"secret\": \"\(secret)\"\(more)}}"
        }
        for (name, text) in [
            ("open", "secret"), ("empty", ""), ("text", "nothing"), ("no-keys", "{\"keys\": []}"),
            ("chain", first.credentials.certificateChainPEM), ("key", first.credentials.privateKeyPEM),
            ("other-key", second.credentials.privateKeyPEM), ("open-key", first.credentials.privateKeyPEM),
            ("hook-address", hook("ftp://x")),
            ("hook-secret", hook("https://x", "00")),
            ("hook-authorities", hook("https://x", String(repeating: "0", count: 32), ", \"authorities\": \"/nope\"")),
            ("hook", hook("https://x")), ("token", "secret"), ("hook-none", "{}"),
            ("hook-typo", hook("https://x", String(repeating: "0", count: 32), ", \"payloads\": true")),
            ("hook-other", hook("https://x").replacing("{\"default\"", with: "{\"defualt\": 1, \"default\"")),
            ("hook-tenant", "{\"tenants\": {\"acme\": \(hook("https://x").dropFirst(12))}"),
        ] {
            let path = try folder.write(name, text)
            try FileManager.default.setAttributes(
                [.posixPermissions: name.hasPrefix("open") ? 0o644 : 0o600], ofItemAtPath: path)
        }
        // What a key leads to counts, not the link.
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("linked-key"), withDestinationPath: folder.file("key"))
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("linked-hook"), withDestinationPath: folder.file("hook"))
        return folder
    }

    private func evaluate(_ settings: String, in folder: TemporaryFolder) throws -> ServerInvocation.Outcome {
        let path = try folder.write("c.yaml", settings.replacing("@", with: folder.path) + "\n")
        return ServerInvocation(arguments: ["--config", path], environment: [:]).evaluate()
    }

    @Test("A data folder without a name, as of a variable that is not set, is a problem")
    func namelessFolder() {
        let outcome = ServerInvocation(arguments: ["--data", ""], environment: [:]).evaluate()
        #expect(outcome.command == nil)
        #expect(outcome.problems == [SettingProblem(.option("--data"), key: "data", "the value is empty.")])
    }

    @Test("Each problem has file, line and key", arguments: wrong)
    func refused(wrong: Wrong) throws {
        let folder = try files()
        let outcome = try evaluate("port: 0\n" + wrong.settings, in: folder)
        #expect(outcome.command == nil && outcome.problems.count == 1, "\(outcome.problems)")
        let problem = try #require(outcome.problems.first)
        #expect(problem.key == wrong.key)
        let lines = wrong.settings.split(separator: "\n")
        let place = lines.firstIndex { $0.hasPrefix(wrong.key.prefix { $0 != "." } + ":") } ?? 0
        #expect(problem.origin == .file(folder.file("c.yaml"), line: place + 2))
        #expect(
            wrong.says.isEmpty || problem.message.contains(wrong.says.replacing("@", with: folder.path)), "\(problem)")
        // Nothing of what the system says of itself, and nothing secret.
        #expect(!problem.message.contains("NSCocoa") && !problem.message.contains("Error Domain"), "\(problem)")
        #expect(!problem.message.contains("PRIVATE KEY"), "\(problem)")
        #expect(!problem.message.hasPrefix(wrong.key + ": "), "said twice")
    }

    @Test("A token of the environment is warned of where there is no backend to send it to", arguments: [true, false])
    func tokenForNobody(hasBackend: Bool) throws {
        let folder = try files()
        let path = try folder.write("c.yaml", hasBackend ? "authorize: {url: \"https://x\"}\n" : "port: 0\n")
        let invocation = ServerInvocation(
            arguments: ["--config", path], environment: ["LONGLINE_AUTHORIZE_TOKEN": "secret"])
        let outcome = invocation.evaluate()
        #expect(outcome.problems == [] && outcome.command != nil)
        let warning = outcome.warnings.first { $0.key == "authorize.token" }
        #expect((warning == nil) == hasBackend)
        #expect(warning.map { $0.origin == .variable("LONGLINE_AUTHORIZE_TOKEN") } ?? hasBackend)
        #expect(warning?.description.contains("secret") != true)
    }

    @Test("A token of the environment that no header can carry is named; one that ends with a line can be carried")
    func environmentToken() throws {
        let folder = try files()
        let path = try folder.write("c.yaml", "authorize: {url: \"https://x\"}\n")
        func evaluate(_ token: String) -> ServerInvocation.Outcome {
            ServerInvocation(arguments: ["--config", path], environment: ["LONGLINE_AUTHORIZE_TOKEN": token]).evaluate()
        }
        for token in ["two words", "two\nlines", "nai\u{308}ve", "\n"] {
            let outcome = evaluate(token)
            #expect(outcome.command == nil && outcome.problems.count == 1, "\(outcome.problems)")
            let problem = try #require(outcome.problems.first)
            #expect(problem.key == "authorize.token" && problem.origin == .variable("LONGLINE_AUTHORIZE_TOKEN"))
            #expect(problem.message == "LONGLINE_AUTHORIZE_TOKEN holds no token.")
        }
        let good = evaluate("secret\n")
        #expect(good.problems == [] && good.command != nil)
        // What a backend is sent.
        let options = try AuthorizationOptions.parse(["--authorize-url", "https://x"])
        #expect(try options.secret(inEnvironment: "secret\n") == "secret")
        #expect(try options.secret(inEnvironment: nil) == nil)
    }

    @Test("What is right is not refused")
    func good() throws {
        let outcome = try evaluate(
            """
            certificate: @/chain
            key: @/linked-key
            jwks: ["https://x/keys.json"]
            jwks-ca: @/chain
            authorize: {url: "https://x:1/a", ca: @/chain, token-file: @/token}
            webhooks: @/linked-hook
            control: [8443, "[::1]:8443", "127.0.0.1:0"]
            admin: [8444, "127.0.0.1:0"]
            access-point: ["x:1", "[2001:db8::1]:443", "xn--mnchen-3ya.example:443"]
            tenant: [default, acme]
            tenant-limit: ["acme=rate:5"]
            device-policy: [one, "acme=all"]
            """, in: try files())
        #expect(outcome.problems == [] && outcome.command != nil)
        #expect(outcome.warnings == [])
    }

    @Test(
        "All addresses of the machine as access points are a warning, and named ones are none",
        arguments: [
            ("host: [127.0.0.1, 0.0.0.0]\ncontrol: [8443]", "for 0.0.0.0 clients are told"),
            ("host: [\"::\"]\ncontrol: [8443]", "for :: clients are told"),
            ("host: [0.0.0.0]\ncontrol: [8443]\naccess-point: [\"x:1\"]", nil),
            ("host: [0.0.0.0]", nil), ("host: [127.0.0.1]\ncontrol: [8443]", nil),
        ] as [(String, String?)])
    func wildcards(settings: String, says: String?) throws {
        let folder = try files()
        let outcome = try evaluate(settings, in: folder)
        #expect(outcome.problems == [] && outcome.command != nil && outcome.warnings.count == (says == nil ? 0 : 1))
        guard let says else { return }
        let warning = try #require(outcome.warnings.first)
        #expect(warning.key == "host" && warning.origin == .file(folder.file("c.yaml"), line: 1))
        #expect(warning.message.hasPrefix(says) && warning.message.contains("access-point"), "\(warning)")
    }

    @Test(
        "The dates of a certificate are a warning, with the date",
        arguments: [(-30, "expired on"), (0, "expires on")])
    func dates(days: Int, says: String) async throws {
        let folder = try files()
        let now = UInt64(Date().timeIntervalSince1970)
        let made = try DevelopmentCertificate.generate(
            names: ["localhost"], validDays: 25, now: UInt64(Int(now) + (days - 20) * 86_400))
        try folder.write("old-chain", made.certificatePEM)
        try folder.writeSecret("old-key", made.privateKeyPEM)
        let outcome = try evaluate("certificate: @/old-chain\nkey: @/old-key", in: folder)
        #expect(outcome.problems == [] && outcome.command != nil && outcome.warnings.count == 1)
        let day = Date(timeIntervalSince1970: Double(try made.credentials.validity().end)).formatted(.iso8601)
        #expect(outcome.warnings.first?.message == "the certificate \(says) \(day)", "\(outcome.warnings)")
        #expect(outcome.warnings.first?.origin == .file(folder.file("c.yaml"), line: 1))
        let (status, output) = try await ToolProcess.run(["config", "check", folder.file("c.yaml")])
        let line = "warning: \(folder.file("c.yaml")):1: certificate: the certificate \(says)"
        #expect(status == 0 && output.contains(line), "\(output)")
    }
}
