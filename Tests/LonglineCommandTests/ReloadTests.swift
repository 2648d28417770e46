import Foundation
import LonglineServer
import LonglineTestKit
import QUICEngine
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("Reload on SIGHUP", .timeLimit(.minutes(3)))
struct ReloadTests {
    /// A server that runs with a file.
    private struct Site {
        let folder: TemporaryFolder
        let file: String
        let server: ToolProcess
        let port: String

        init(_ settings: String, environment: [String: String] = [:]) async throws {
            folder = try TemporaryFolder()
            file = try folder.write("c.yaml", Self.base(folder) + settings)
            server = try ToolProcess(["server", "--config", file], environment: environment)
            let ready = try #require(await server.line(with: "longline server ready on"), "\(server.output)")
            port = try #require(ready.firstMatch(of: /127\.0\.0\.1:([0-9]+)/).map { String($0.1) })
        }

        private static func base(_ folder: TemporaryFolder) -> String {
            "host: [127.0.0.1]\nport: 0\nevent-loops: 1\ndata: \(folder.path)/data\n"
        }

        func reload(_ settings: String) throws {
            try folder.write("c.yaml", Self.base(folder) + settings)
            server.signal(SIGHUP)
        }

        /// Sends one message; its exit status and what it said.
        func send(_ user: String, pin: String) async throws -> (status: Int32?, output: String) {
            let token = try await ToolProcess.run(
                ["token", "--data", "\(folder.path)/data", "--user", user, "--device", "phone"])
            let file = try folder.write("\(user).token", token.output)
            return try await ToolProcess.run([
                "send", "--server", "127.0.0.1:\(port)", "--pin", pin, "--token-file", file, "--to", "user/\(user)",
                "--timeout", "20", "hello",
            ])
        }
    }

    /// A certificate with its key; the pin of its public key.
    private func identity(_ name: String, in folder: TemporaryFolder) throws -> (yaml: String, pin: String) {
        let made = try ServerDirectory(folder.path + "/\(name)").developmentIdentity(names: ["localhost", "127.0.0.1"])
        return (try yaml(name, made.credentials, in: folder), made.pinText)
    }

    private func yaml(
        _ name: String, _ credentials: TLSServerCredentials, in folder: TemporaryFolder
    ) throws -> String {
        let certificate = try folder.write("\(name)-chain.pem", credentials.certificateChainPEM)
        let key = try folder.writeSecret("\(name)-key.pem", credentials.privateKeyPEM)
        return "certificate: \(certificate)\nkey: \(key)\n"
    }

    @Test("A certificate that has expired takes the place of none that is good, and a server that has no other says so")
    func expired() async throws {
        let folder = try TemporaryFolder()
        let good = try identity("good", in: folder)
        let now = UInt64(Date().timeIntervalSince1970)
        let made = try DevelopmentCertificate.generate(names: ["localhost"], validDays: 1, now: now - 3 * 86_400)
        let old = try yaml("old", made.credentials, in: folder)
        let site = try await Site(good.yaml)
        try site.reload(old + "maximum-sessions: 5\n")
        #expect(await site.server.line(with: "certificate not reloaded", "expired on") != nil, "\(site.server.output)")
        // What has nothing to do with it is applied all the same.
        let line = await site.server.line(with: "configuration reloaded", "maximum-sessions")
        #expect(line?.contains("certificate") == false, "\(site.server.output)")
        #expect(try await site.send("ann", pin: good.pin).status == 0)
        // The files may be others under the same names.
        try folder.write("good-chain.pem", made.credentials.certificateChainPEM)
        try folder.writeSecret("good-key.pem", made.credentials.privateKeyPEM)
        try site.reload(good.yaml + "maximum-sessions: 0\n")
        #expect(await site.server.line(with: "certificate not reloaded", "expired on") != nil, "\(site.server.output)")
        #expect(try await site.send("bob", pin: good.pin).status == 0)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)

        let other = try await Site(old)
        #expect(other.server.output.contains { $0.contains("the certificate expired on") }, "\(other.server.output)")
        // Nothing better is in use: it may be replaced by one that is as bad.
        try other.reload(old)
        #expect(await other.server.line(with: "configuration reloaded") != nil)
        other.server.signal(SIGTERM)
        #expect(await other.server.status() == 0)
    }

    @Test("A certificate that has expired under the same name leaves no token key in use that was taken away")
    func expiredInPlace() async throws {
        let folder = try TemporaryFolder()
        let good = try identity("good", in: folder)
        let signer = try ServerDirectory(folder.file("signer"))
        let key = try folder.write("stolen.pem", try signer.signingKey().verificationKey.pem)
        let site = try await Site(good.yaml + "token-key: [\(key)]\n")
        let token = try await ToolProcess.run(
            ["token", "--data", folder.file("signer"), "--user", "ann", "--device", "phone"])
        func send() async throws -> (status: Int32?, output: String) {
            try await ToolProcess.run([
                "send", "--server", "127.0.0.1:\(site.port)", "--pin", good.pin, "--token", token.output, "--to",
                "user/ann", "--timeout", "20", "hello",
            ])
        }
        let before = try await send()
        #expect(before.status == 0, "\(before.output)")

        let now = UInt64(Date().timeIntervalSince1970)
        let made = try DevelopmentCertificate.generate(names: ["localhost"], validDays: 1, now: now - 3 * 86_400)
        _ = try yaml("good", made.credentials, in: folder)
        try site.reload(good.yaml)
        #expect(await site.server.line(with: "certificate not reloaded", "expired on") != nil, "\(site.server.output)")
        #expect(await site.server.line(with: "configuration reloaded", "token-key") != nil, "\(site.server.output)")
        // The keys are read after that line, and before the next.
        site.server.signal(SIGHUP)
        #expect(await site.server.line(with: "configuration reloaded") != nil, "\(site.server.output)")
        let after = try await send()
        #expect(after.status != 0, "\(after.output)")
        #expect(try await site.send("bob", pin: good.pin).status == 0, "the certificate in memory is presented still")
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("A key that everybody may read is not taken")
    func openKey() async throws {
        let folder = try TemporaryFolder()
        let (first, second) = (try identity("first", in: folder), try identity("second", in: folder))
        let site = try await Site(first.yaml)
        try folder.open("second-key.pem")
        try site.reload(second.yaml)
        let line = await site.server.line(with: "configuration not reloaded")
        #expect(line?.contains("everybody may read \(folder.file("second-key.pem"))") == true, "\(site.server.output)")
        try folder.open("first-key.pem")
        try site.reload(first.yaml + "maximum-sessions: 0\n")
        #expect(await site.server.line(with: "certificate not reloaded", "everybody may read") != nil)
        try site.folder.write("c.yaml", "data: \(site.folder.path)/data\n" + first.yaml)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
        let start = try await ToolProcess.run(["server", "--config", site.file])
        #expect(start.status == 78 && start.output.contains("everybody may read"), "\(start.output)")
    }

    @Test("The log level and the limits change while the server runs, and what needs a restart is named")
    func settings() async throws {
        let site = try await Site("log: {level: notice}\n")
        try site.reload("log: {level: debug}\nmaximum-sessions-per-user: 3\nclock-skew: 60\n")
        #expect(await site.server.line(with: "setting needs a restart", "clock-skew") != nil)
        // A line of a level that was off before.
        #expect(await site.server.line(with: "configuration reloaded") != nil)
        let said = site.server.output.joined(separator: "\n")
        #expect(said.contains("limits reloaded") == false, "the level was notice until then")
        try site.reload("log: {level: debug}\nmaximum-sessions-per-user: 2\nclock-skew: 60\n")
        #expect(await site.server.line(with: "limits reloaded") != nil, "the level is debug now")
        let line = await site.server.line(with: "configuration reloaded")
        #expect(line?.contains("maximum-sessions-per-user") == true && line?.contains("log.level") == false)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("What clients are told is warned of by where the server listens, not by where it would after a restart")
    func accessWarning() async throws {
        let warning = "clients are told every address of this machine"
        let folder = try TemporaryFolder()
        func settings(_ host: String) -> String {
            "host: [\(host)]\nport: 0\nevent-loops: 1\ncontrol: [0]\ndata: \(folder.path)/data\n"
        }
        for (first, second) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")] {
            let file = try folder.write("c.yaml", settings(first))
            let server = try ToolProcess(["server", "--config", file])
            #expect(await server.line(with: "longline control ready for clients") != nil, "\(server.output)")
            let before = server.output.count
            try folder.write("c.yaml", settings(second))
            server.signal(SIGHUP)
            #expect(await server.line(with: "configuration reloaded") != nil, "\(server.output)")
            let said = server.output.dropFirst(before)
            #expect(said.contains { $0.contains("setting needs a restart") && $0.contains("host") })
            let warned = said.filter { $0.contains("for 0.0.0.0 \(warning)") }
            #expect(warned.count == (first == "0.0.0.0" ? 1 : 0), "\(server.output)")
            // It would name a line that says something else.
            #expect(warned.allSatisfy { !$0.contains(file) })
            server.signal(SIGTERM)
            #expect(await server.status() == 0)
        }
    }

    @Test("A file that is read at the start only, and holds something else now, needs a restart as another path does")
    func startFiles() async throws {
        let keys = try TemporaryFolder()
        let token = try keys.writeSecret("backend.token", "first")
        let settings = "authorize: {url: \"http://127.0.0.1:9/ask\", token-file: \(token)}\n"
        let site = try await Site(settings)
        try site.reload(settings)
        #expect(await site.server.line(with: "configuration reloaded", "nothing") != nil)
        #expect(!site.server.output.contains { $0.contains("setting needs a restart") })
        try keys.writeSecret("backend.token", "second")
        try site.reload(settings)
        #expect(await site.server.line(with: "setting needs a restart", "authorize.token-file") != nil)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("An authority of a webhook that holds something else now needs a restart, too")
    func webhookAuthority() async throws {
        let folder = try TemporaryFolder()
        func authority(_ name: String) throws -> String {
            try ServerDirectory(folder.file(name)).developmentIdentity(names: ["localhost"]).credentials
                .certificateChainPEM
        }
        let path = try folder.write("authority.pem", try authority("first"))
        let secret = String(repeating: "0", count: 32)
        let hooks = try folder.writeSecret(
            "hooks.json",
            """
            {"tenants": {"default": {"url": "https://127.0.0.1:9/", "secret": "\(secret)", "authorities": "\(path)"}}}
            """)
        let settings = "webhooks: \(hooks)\n"
        let site = try await Site(settings)
        try site.reload(settings)
        #expect(await site.server.line(with: "configuration reloaded") != nil)
        #expect(!site.server.output.contains { $0.contains("setting needs a restart") })
        try folder.write("authority.pem", try authority("second"))
        try site.reload(settings)
        #expect(await site.server.line(with: "setting needs a restart", "webhooks") != nil)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("A SIGHUP that comes while the server starts does not end it")
    func early() async throws {
        let folder = try TemporaryFolder()
        let server = try ToolProcess(
            ["server", "--data", "\(folder.path)/data", "--host", "127.0.0.1", "--port", "0", "--event-loops", "1"])
        // The folder is made after the signal is ignored.
        while !FileManager.default.fileExists(atPath: "\(folder.path)/data") { await Task.yield() }
        server.signal(SIGHUP)
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("What a file says by the time of a SIGHUP that comes while the server starts is applied when it has started")
    func earlyChange() async throws {
        let folder = try TemporaryFolder()
        let gate = folder.file("gate")
        try #require(mkfifo(gate, 0o600) == 0)
        let settings = "host: [127.0.0.1]\nport: 0\nevent-loops: 1\ndata: \(folder.path)/data\n"
        let file = try folder.write("c.yaml", settings)
        // The start goes on once somebody reads its key log.
        let server = try ToolProcess(["server", "--config", file], environment: ["SSLKEYLOGFILE": gate])
        // The folder is made after the settings are read.
        while !FileManager.default.fileExists(atPath: "\(folder.path)/data") { await Task.yield() }
        try folder.write("c.yaml", settings + "maximum-sessions: 7\n")
        server.signal(SIGHUP)
        let reader = open(gate, O_RDONLY | O_NONBLOCK)
        defer { close(reader) }
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        #expect(await server.line(with: "configuration reloaded", "maximum-sessions") != nil, "\(server.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("A SIGHUP that comes while the settings are read does not end the server, and the file of then is applied")
    func earliestChange() async throws {
        let folder = try TemporaryFolder()
        let file = folder.file("c.yaml")
        try #require(mkfifo(file, 0o600) == 0)
        let server = try ToolProcess(["server", "--config", file])
        // Succeeds once the settings are being read.
        var writer: Int32 = -1
        while writer < 0 {
            try await Task.sleep(for: .milliseconds(5))
            writer = open(file, O_WRONLY | O_NONBLOCK)
        }
        let settings = "host: [127.0.0.1]\nport: 0\nevent-loops: 1\ndata: \(folder.path)/data\n"
        let next = try folder.write("next.yaml", settings + "maximum-sessions: 7\n")
        try #require(rename(next, file) == 0)
        server.signal(SIGHUP)
        let pipe = FileHandle(fileDescriptor: writer, closeOnDealloc: true)
        try pipe.write(contentsOf: Data(settings.utf8))
        try pipe.close()
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        #expect(await server.line(with: "configuration reloaded", "maximum-sessions") != nil, "\(server.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("No secret of the environment is in the log, at whatever level")
    func secrets() async throws {
        let site = try await Site(
            "log: {level: trace}\nauthorize: {url: \"http://127.0.0.1:9/ask\"}\n",
            environment: ["LONGLINE_AUTHORIZE_TOKEN": "a-bearer-token", "OTHER_PASSWORD": "of-somebody-else"])
        try site.reload("log: {level: trace}\n")
        #expect(await site.server.line(with: "setting needs a restart", "authorize.url") != nil)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
        let said = site.server.output.joined(separator: "\n")
        #expect(said.contains("ServerReloader"), "the services are named")
        #expect(!said.contains("a-bearer-token") && !said.contains("of-somebody-else"))
    }

    @Test("A file that became wrong changes nothing, and the log says what is wrong with it")
    func invalid() async throws {
        let site = try await Site("")
        try site.reload("log: {level: error}\nmaximum-sessions: 0\n")
        let line = await site.server.line(with: "configuration not reloaded", "maximum-sessions")
        #expect(line?.contains("\(site.file):6") == true, "\(site.server.output)")
        // The level is still info: these lines are below error.
        try site.reload("")
        #expect(await site.server.line(with: "configuration reloaded") != nil)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("A file of keys that is not there is named with file, line and key, and the old keys stay")
    func absentKeys() async throws {
        let site = try await Site("")
        try site.reload("token-key: [/nope]\n")
        let line = await site.server.line(with: "configuration not reloaded")
        #expect(line?.contains("\(site.file):5: token-key: there is no file /nope") == true, "\(site.server.output)")
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
        #expect(!site.server.output.contains { $0.contains("NSCocoaErrorDomain") })
    }

    @Test("Another certificate takes the place of the one before, and one that is no good does not")
    func certificate() async throws {
        let folder = try TemporaryFolder()
        let (first, second) = (try identity("first", in: folder), try identity("second", in: folder))
        let site = try await Site(first.yaml)
        #expect(try await site.send("ann", pin: first.pin).status == 0)
        try site.reload(second.yaml)
        #expect(await site.server.line(with: "configuration reloaded", "certificate, key") != nil)
        #expect(try await site.send("bob", pin: second.pin).status == 0)

        let broken = try folder.write("broken.pem", "nothing")
        try site.reload("certificate: \(broken)\nkey: \(broken)\nmaximum-sessions: 1\n")
        #expect(await site.server.line(with: "configuration not reloaded") != nil)
        #expect(!site.server.output.contains { $0.contains("certificate not reloaded") })
        #expect(try await site.send("cat", pin: second.pin).status == 0)
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
    }

    @Test("With a control layer its certificate is another one too, and clients are told of other access points")
    func controlLayer() async throws {
        let folder = try TemporaryFolder()
        let (first, second) = (try identity("first", in: folder), try identity("second", in: folder))
        let control = "control: [0]\n"
        let site = try await Site(first.yaml + control)
        let ready = try #require(await site.server.line(with: "control ready for clients"), "\(site.server.output)")
        let address = try #require(ready.firstMatch(of: /https:\/\/[0-9.:]+/).map { String($0.0) })
        func send(_ user: String, pin: String) async throws -> (status: Int32?, output: String) {
            let token = try await ToolProcess.run(
                ["token", "--data", "\(site.folder.path)/data", "--user", user, "--device", "phone"])
            let file = try folder.write("\(user).token", token.output)
            return try await ToolProcess.run([
                "send", "--control", address, "--pin", pin, "--token-file", file, "--to", "user/\(user)", "--timeout",
                "20", "hello",
            ])
        }
        let sent = try await send("ann", pin: first.pin)
        #expect(sent.status == 0, "\(sent.output)")
        try site.reload(second.yaml + control + "access-point: [\"127.0.0.1:\(site.port)\"]\naccess: {lifetime: 1m}\n")
        let line = await site.server.line(with: "configuration reloaded", "certificate, key")
        #expect(line?.contains("access-point") == true && line?.contains("access.lifetime") == true)
        let again = try await send("bob", pin: second.pin)
        #expect(again.status == 0, "\(again.output)")
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
        #expect(!site.server.output.contains { $0.contains("setting needs a restart") })
    }

    @Test("The service manager hears when clients can connect")
    func readiness() async throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/notify"
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let bound = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(bound == 0)
        let site = try await Site("", environment: ["NOTIFY_SOCKET": path])
        func received() -> String {
            var buffer = [UInt8](repeating: 0, count: 256)
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        }
        site.server.signal(SIGTERM)
        #expect(await site.server.status() == 0)
        #expect(received() == "READY=1")
        #expect(received() == "STOPPING=1")
    }
}

extension TemporaryFolder {
    /// Has everybody read a file.
    fileprivate func open(_ name: String) throws {
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: file(name))
    }
}
