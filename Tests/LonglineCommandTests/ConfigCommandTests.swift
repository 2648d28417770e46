import Foundation
import LonglineTestKit
import Testing

@Suite("longline config", .timeLimit(.minutes(2)))
struct ConfigCommandTests {
    @Test("A good file is called so, with status 0")
    func good() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "port: 5\nlog: {level: debug}\n")
        let (status, output) = try await ToolProcess.run(["config", "check", path])
        #expect(status == 0 && output == "\(path): good, 2 settings", "\(output)")
    }

    @Test("Every problem of a file is told with line and key, with status 1")
    func bad() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "prot: 5\nport: x\ncertificate: /nowhere.pem\n")
        let (status, output) = try await ToolProcess.run(
            ["config", "check", path], environment: ["LONGLINE_EVENT_LOOPS": "0", "LONGLINE_TENNANT": "x"])
        #expect(status == 1)
        for line in [
            "error: \(path):1: prot: there is no such setting, did you mean port?",
            "error: \(path):2: port: 'x' is no whole number",
            "error: \(path):3: certificate: certificate and key belong together.",
            "error: \(path):3: certificate: there is no file /nowhere.pem",
            "error: environment: LONGLINE_EVENT_LOOPS: event-loops: 0 is out of bounds: it has to be 1 to 256",
            "warning: environment: LONGLINE_TENNANT: there is no such setting, did you mean LONGLINE_TENANT?",
        ] { #expect(output.split(separator: "\n").contains { $0 == line }, "\(line) in: \(output)") }
    }

    @Test("A file that is not there is status 1, a wrong command line 64")
    func unusable() async throws {
        #expect(try await ToolProcess.run(["config", "check", "/nowhere.yaml"]).status == 1)
        #expect(try await ToolProcess.run(["config", "check", "--nonsense"]).status == 64)
    }

    @Test("What is shown says where it comes from, keeps secrets, and is a configuration itself")
    func show() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(
            "c.yaml", "host: [\"::1\"]\nauthorize: {url: \"https://example.com/a\"}\n")
        let (status, output) = try await ToolProcess.run(
            ["config", "show", path], environment: ["LONGLINE_AUTHORIZE_TOKEN": "hunter3", "LONGLINE_PORT": "7"])
        #expect(status == 0)
        #expect(!output.contains("hunter"))
        let lines = output.split(separator: "\n")
        func has(_ text: String, _ origin: String) -> Bool {
            lines.contains { $0.hasPrefix(text) && $0.hasSuffix("# \(origin)") }
        }
        #expect(has("host: [\"::1\"] ", "\(path):1"))
        #expect(has("port: 7 ", "environment: LONGLINE_PORT"))
        #expect(has("clock-skew: 30 ", "default"))
        #expect(has("# certificate: ", "not set"))
        #expect(has("# authorize.token: *** ", "environment: LONGLINE_AUTHORIZE_TOKEN"))
        let again = try folder.write("again.yaml", output)
        let (check, said) = try await ToolProcess.run(["config", "check", again])
        #expect(check == 0, "\(said)")
        // One that is refused for it, too.
        let queries = try folder.write(
            "queries.yaml",
            "authorize: {url: \"https://x/a?key=hunter4\"}\njwks: [\"https://x/keys?token=hunter5\"]\n")
        let shown = try await ToolProcess.run(["config", "show", queries])
        #expect(shown.status == 0 && !shown.output.contains("hunter"), "\(shown.output)")
        #expect(shown.output.contains("https://x/a?***") && shown.output.contains("https://x/keys?***"))
        let password = try folder.write("password.yaml", "authorize: {url: \"https://me:hunter2@example.com/a\"}\n")
        for command in ["show", "check"] {
            let (status, output) = try await ToolProcess.run(["config", command, password])
            #expect(status == 1 && !output.contains("hunter"), "\(output)")
        }
    }

    @Test("All keys are listed with their names elsewhere")
    func keys() async throws {
        let (status, output) = try await ToolProcess.run(["config", "keys"])
        #expect(status == 0)
        #expect(output.contains("publish.rate\n    --publish-rate  LONGLINE_PUBLISH_RATE\n"))
        #expect(output.contains("number, above 0, to 1000000000 (messages a second); SIGHUP applies it"))
    }

    @Test("A server does not start with a configuration that is wrong, and says where")
    func refusal() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "port: 0\nevent-loops: 1000\n")
        let (status, output) = try await ToolProcess.run(["server", "--config", path, "--data", folder.path + "/d"])
        #expect(status == 78)
        #expect(output.contains("error: \(path):2: event-loops: 1000 is out of bounds"), "\(output)")
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/d"))
    }

    @Test("What only trying tells is refused by the check and by the server, in the same words")
    func trial() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "port: 0\nauthorize:\n  url: ftp://x\ntoken-key: [/nope]\n")
        let (status, output) = try await ToolProcess.run(["config", "check", path])
        #expect(status == 1)
        #expect(output.contains("error: \(path):3: authorize.url: the address"), "\(output)")
        #expect(output.contains("error: \(path):4: token-key: there is no file /nope"), "\(output)")
        let server = try await ToolProcess.run(["server", "--config", path, "--data", folder.path + "/d"])
        #expect(server.status == 78 && server.output == output, "\(server.output)")
    }
}
