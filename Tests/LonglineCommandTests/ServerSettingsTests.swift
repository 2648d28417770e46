import ArgumentParser
import Foundation
import LonglineServer
import LonglineSettings
import LonglineTestKit
import Testing

@testable import longline

@Suite("The settings of the server")
struct ServerSettingsTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test("Every option of 'longline server' is a setting, and every setting an option")
    func complete() {
        let options = ServerOptionHelp.all.map(\.name).filter { $0 != "config" }
        #expect(options.count > 40, "the options are known")
        let traits = ServerSettings.traits.map(\.key.optionName)
        for option in options where !traits.contains(option) {
            Issue.record("--\(option) can't be set in a file: add it to ServerSettings.traits")
        }
        for trait in traits where !options.contains(trait) { Issue.record("there is no option --\(trait)") }
        #expect(Set(traits).count == traits.count)
    }

    @Test("Kinds fit the options: lists repeat, flags have no value, defaults are values")
    func kinds() throws {
        for option in ServerOptionHelp.all where option.name != "config" {
            let setting = try #require(ServerSettings.catalogue.setting(option: option.name))
            let isList = if case .list = setting.kind { true } else { false }
            #expect(isList == option.isRepeating, "\(setting.key)")
            #expect((setting.kind == .flag) == option.isFlag, "\(setting.key)")
            #expect(!setting.meaning.isEmpty, "\(setting.key)")
            guard let standard = option.standard else { continue }
            for item in standard.components(separatedBy: ", ") {
                #expect(throws: Never.self, "\(setting.key)") { try setting.kind.value(item) }
            }
        }
    }

    @Test("All devices of a user may come back at once, however many there may be")
    func crowd() throws {
        let some = try LimitOptions.parse([]).limits()
        #expect(some.connectBurst == ServerLimits().connectBurst)
        let many = try LimitOptions.parse(["--maximum-sessions-per-user", "5000"]).limits()
        #expect(many.connectBurst == 10_000 && many.connectsPerSecond > 1_000)
    }

    @Test("The bounds of numbers are those that the options have")
    func bounds() throws {
        // What an option can't be given without.
        let company = ["publish.burst": ["--publish-rate=5"]]
        func isTaken(_ key: SettingKey, _ value: String) -> Bool {
            let backend = "\(key)".hasPrefix("authorize.") ? ["--authorize-url=https://x"] : []
            let layers = ["access.", "capacity.", "control-limit."]
            let control = layers.contains { "\(key)".hasPrefix($0) } ? ["--admin=8444"] : []
            return
                (try? ServerCommand.parse(["\(key.option)=\(value)"] + control + backend + (company["\(key)"] ?? [])))
                != nil
        }
        for trait in ServerSettings.traits {
            switch trait.kind {
            case .integer(let range):
                #expect(isTaken(trait.key, "\(range.lowerBound)"), "\(trait.key)")
                #expect(!isTaken(trait.key, "\(range.lowerBound - 1)"), "\(trait.key)")
                #expect(isTaken(trait.key, "\(range.upperBound)"), "\(trait.key)")
                if range.upperBound < .max { #expect(!isTaken(trait.key, "\(range.upperBound + 1)"), "\(trait.key)") }
            case .number(let lower, let upper, let includesLower):
                #expect(isTaken(trait.key, "\(lower)") == includesLower, "\(trait.key)")
                #expect(isTaken(trait.key, "\(upper)"), "\(trait.key)")
                #expect(!isTaken(trait.key, "\(upper + 1)"), "\(trait.key)")
            case .choice(let words):
                for word in words { #expect(isTaken(trait.key, word), "\(trait.key)") }
                #expect(!isTaken(trait.key, "something-else"), "\(trait.key)")
            default: break
            }
        }
    }

    @Test("docs/configuration.md lists every setting as it is")
    func documented() throws {
        let page = try String(contentsOf: Self.root.appending(path: "docs/configuration.md"), encoding: .utf8)
        let table = SettingsTable.markdown(ServerSettings.catalogue)
        for line in table.split(separator: "\n") where !page.contains(line) {
            Issue.record("docs/configuration.md lacks this line of 'longline config keys --markdown': \(line)")
        }
        let rows = page.split(separator: "\n").count { $0.hasPrefix("| `") && $0.split(separator: "|").count == 5 }
        #expect(rows == ServerSettings.catalogue.settings.count, "a row of the page is about no setting any more")
    }

    @Test("The configuration in the package is good")
    func packaged() {
        let path = Self.root.appending(path: "packaging/longline.yaml").path
        let outcome = ServerInvocation(arguments: ["--config", path], environment: [:]).evaluate()
        #expect(outcome.problems == [] && outcome.commandLineError == nil && outcome.command != nil)
        #expect(outcome.command?.data == "/var/lib/longline" && outcome.command?.host == ["127.0.0.1"])
    }

    @Test("The options' own rules hold for files, and name the lines of what they are about")
    func rules() throws {
        let folder = try TemporaryFolder()
        let file = try folder.write("any.pem", "")
        let path = try folder.write(
            "c.yaml",
            """
            certificate: \(file)
            publish:
              burst: 3
            tenant-limit: ["trial=speed:3"]
            jwks-ca: \(file)
            tenant: [a b]
            host: [localhost]
            """)
        let outcome = ServerInvocation(arguments: ["--config", path], environment: [:]).evaluate()
        #expect(outcome.command == nil && outcome.commandLineError == nil)
        for (line, key) in [
            (1, "certificate"), (3, "publish.burst"), (4, "tenant-limit"), (5, "jwks-ca"), (6, "tenant"), (7, "host"),
        ] {
            let found = outcome.problems.filter { $0.origin == .file(path, line: line) && $0.key == key }
            #expect(found.count == 1, "\(key): \(outcome.problems)")
        }
        #expect(outcome.problems.count == 6)
        #expect(outcome.problems.contains { $0.message.contains("publish.burst goes with publish.rate") })
    }

    @Test("What goes with a broken setting is not complained about as well")
    func consequences() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "publish: {rate: fast, burst: 3}\n")
        let outcome = ServerInvocation(arguments: ["--config", path], environment: [:]).evaluate()
        #expect(outcome.problems.map(\.key) == ["publish.rate"])
        #expect(outcome.commandLineError == nil && outcome.command == nil)
    }

    @Test("Options and a file complete each other, and an option takes a whole list's place")
    func together() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("c.yaml", "publish: {rate: 5}\ntenant: [a, b]\nport: 1\n")
        let outcome = ServerInvocation(
            arguments: ["--config", path, "--publish-burst", "7", "--tenant", "c"], environment: ["LONGLINE_PORT": "2"]
        ).evaluate()
        let command = try #require(outcome.command)
        #expect(command.limits.publishRate == 5 && command.limits.publishBurst == 7)
        #expect(command.tenant == ["c"] && command.port == 2)
        let alone = ServerInvocation(arguments: ["--publish-burst", "7"], environment: [:]).evaluate()
        #expect(alone.command == nil && alone.problems == [] && alone.commandLineError != nil)
    }

    @Test("A flag that is on by itself is turned off in a file, and the option that says no counts more than a file")
    func negation() throws {
        func compresses(_ arguments: [String], _ environment: [String: String] = [:]) throws -> Bool {
            let outcome = ServerInvocation(arguments: arguments, environment: environment).evaluate()
            return try #require(outcome.command).limits.compression
        }
        let folder = try TemporaryFolder()
        let off = ["--config", try folder.write("off.yaml", "compression: false\n")]
        let on = ["--config", try folder.write("on.yaml", "compression: true\n")]
        #expect(try compresses([]))
        #expect(try !compresses(off))
        #expect(try compresses(off, ["LONGLINE_COMPRESSION": "true"]))
        #expect(try compresses(off + ["--compression"]))
        #expect(try !compresses(on + ["--no-compression"]))
    }

    @Test("The control layer's addresses can be set in a file, and are checked there")
    func control() throws {
        let folder = try TemporaryFolder()
        let good = try folder.write(
            "good.yaml",
            "control: [\"0.0.0.0:8443\"]\nadmin: [8444]\naccess-point: [\"chat.example.com:443\"]\n")
        let command = try #require(
            ServerInvocation(arguments: ["--config", good], environment: [:]).evaluate().command)
        #expect(command.controlOptions.control == ["0.0.0.0:8443"] && command.controlOptions.admin == ["8444"])
        #expect(
            command.controlOptions.isEnabled && command.controlOptions.access.accessPoint == ["chat.example.com:443"])
        let bad = try folder.write("bad.yaml", "port: 0\nadmin: [example.com]\n")
        let outcome = ServerInvocation(arguments: ["--config", bad], environment: [:]).evaluate()
        #expect(outcome.problems.map(\.key) == ["admin"], "\(outcome.problems)")
        #expect(outcome.problems.first?.origin == .file(bad, line: 2))
    }
}
