import Foundation
import LonglineSettings
import Testing

@Suite("Configuration files")
struct SettingsFileTests {
    private func problems(_ text: String) -> [String] { ExampleCatalogue.file(text).problems.map { "\($0)" } }

    @Test("Values of every kind are read, with their lines")
    func values() throws {
        let file = ExampleCatalogue.file(
            """
            # A comment.
            host: [127.0.0.1, "::1"]
            port: 4433
            publish:
              rate: 2.5
              burst: 10

            log: {level: debug}
            room:
              max-age: 30d
              max-bytes: 64M
            trust-all: yes
            """)
        #expect(file.problems == [])
        #expect(file.entries[SettingKey("host")]?.value == .list(["127.0.0.1", "::1"]))
        #expect(file.entries[SettingKey("port")]?.value == .single("4433"))
        #expect(file.entries[SettingKey("publish.rate")]?.value == .single("2.5"))
        #expect(file.entries[SettingKey("publish.burst")]?.line == 6)
        #expect(file.entries[SettingKey("log.level")]?.value == .single("debug"))
        #expect(file.entries[SettingKey("room.max-age")]?.value == .single("30d"))
        #expect(file.entries[SettingKey("trust-all")]?.value == .single("true"))
    }

    @Test("A byte-order mark before the first line is passed over")
    func byteOrderMark() {
        let file = ExampleCatalogue.file("\u{FEFF}port: 4433\ntrust-all: yes\n")
        #expect(file.problems == [])
        #expect(file.entries[SettingKey("port")]?.value == .single("4433"))
        #expect(file.entries[SettingKey("trust-all")]?.line == 2)
    }

    @Test("All problems are told, each with file, line and key")
    func allProblems() {
        let found = problems(
            """
            hosst: [127.0.0.1]
            port: 65536
            publish:
              rate: fast
              brust: 3
            log: debug
            room:
              max-age: 30 days
            trust-all: perhaps
            """)
        #expect(
            found == [
                "c.yaml:1: hosst: there is no such setting, did you mean host?",
                "c.yaml:2: port: 65536 is out of bounds: it has to be 0 to 65535",
                "c.yaml:4: publish.rate: 'fast' is no number",
                "c.yaml:5: publish.brust: there is no such setting, did you mean publish.burst?",
                "c.yaml:6: log: is a group: its keys belong below it, indented",
                "c.yaml:8: room.max-age: '30 days' is no time such as 90s, 15m, 24h or 30d",
                "c.yaml:9: trust-all: 'perhaps' is neither true nor false",
            ])
    }

    @Test(
        "Wrong shapes and values are no settings",
        arguments: [
            ("port: [1, 2]", "port: takes a single value"), ("host: 127.0.0.1", "host: takes a list"),
            ("host: [a, [b]]", "host: item 2 of the list"), ("port:", "port: has no value"),
            ("port: 1.5", "port: '1.5' is no whole number"), ("publish.rate: 0", "publish.rate: 0 is out of bounds"),
            ("publish.rate: .inf", "publish.rate: '.inf' is no number"), ("publish.burst: 0", "it has to be 1 or more"),
            ("log.level: loud", "'loud' is none of info, debug"), ("room.max-bytes: 12T", "is no size"),
            ("data: ''", "data: the value is empty"), ("publish-rate: 5", "did you mean publish.rate?"),
            ("port: 1\npublish: {burst: 2}\npublish.burst: 3", "3: publish.burst: is set twice, on line 2 before"),
            ("port: 1\nport: 2", "1: port: is set here and once more below"), ("- port", "lines with 'key: value'"),
            ("host: [a\nport: 1", "is no YAML"), ("port: 1\n---\nport: 2", "is no YAML"),
            ("? [a]\n: b", "a key has to be"),
        ])
    func refused(text: String, expected: String) {
        let file = ExampleCatalogue.file(text)
        #expect(file.problems.count == 1 && "\(file.problems)".contains(expected), "\(file.problems)")
    }

    @Test("A secret in a file is refused without being shown, and the place for it is named")
    func secrets() {
        let found = problems("authorize:\n  token: hunter2\n")
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("c.yaml:2: authorize.token: a secret has no place here"))
        #expect(found[0].contains("authorize.token-file") && !found[0].contains("hunter2"))
    }

    @Test(
        "Nothing but comments, and groups with nothing in them, set nothing", arguments: ["", "# x\n", "log:\n", "~"])
    func empty(text: String) {
        let file = ExampleCatalogue.file(text)
        #expect(file.problems == [] && file.entries.isEmpty)
    }

    @Test("What is no text, or too much of it, or not there is said")
    func unreadable() {
        let catalogue = ExampleCatalogue.catalogue
        let binary = SettingsFile(path: "c", bytes: Data([0xff, 0xfe, 0x00]), catalogue: catalogue)
        #expect("\(binary.problems)".contains("is not UTF-8"))
        let large = SettingsFile(
            path: "c", bytes: Data(repeating: 0x23, count: SettingsFile.maximumSize + 1), catalogue: catalogue)
        #expect("\(large.problems)".contains("is larger"))
        let missing = SettingsFile(path: "/nowhere/c.yaml", catalogue: catalogue)
        #expect("\(missing.problems)".contains("/nowhere/c.yaml: there is no such file"))
        let folder = SettingsFile(path: "/usr", catalogue: catalogue)
        #expect("\(folder.problems)".contains("/usr: is a folder"))
    }

    @Test("An alias bomb costs nothing: it is no setting")
    func bomb() {
        var text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for (name, before) in zip("bcdefgh", "abcdefg") {
            text += "\(name): &\(name) [*\(before), *\(before), *\(before), *\(before), *\(before), *\(before)]\n"
        }
        #expect(ExampleCatalogue.file(text + "host: *h\n").entries.isEmpty)
    }
}
