import LonglineSettings
import Testing

@Suite("Settings from several places")
struct ResolutionTests {
    private let port = SettingKey("port")

    @Test("The command line counts more than the environment, and that more than the file")
    func strength() {
        let file = "port: 1\n"
        let environment = ["LONGLINE_PORT": "2"]
        typealias Entry = ResolvedSettings.Entry
        #expect(
            ExampleCatalogue.resolve(file: file).entries[port] == Entry(.single("1"), .file("c.yaml", line: 1)))
        #expect(
            ExampleCatalogue.resolve(file: file, environment: environment).entries[port]
                == Entry(.single("2"), .variable("LONGLINE_PORT")))
        #expect(
            ExampleCatalogue.resolve(file: file, environment: environment, arguments: ["--port", "3"]).entries[port]
                == Entry(.single("3"), .option("--port")))
        #expect(ExampleCatalogue.resolve().entries[port] == nil)
    }

    @Test("Every setting is reached by the option and the variable that its key makes, and by nothing else")
    func names() {
        for setting in ExampleCatalogue.catalogue.settings {
            let value =
                switch setting.kind {
                case .flag: "true"
                case .integer, .number: "7"
                case .choice(let words): words[0]
                case .time: "7s"
                case .size: "7K"
                case .text, .file, .folder, .list: "x"
                }
            let fromEnvironment = ExampleCatalogue.resolve(environment: [setting.key.variable: value])
            #expect(Array(fromEnvironment.entries.keys) == [setting.key])
            #expect(fromEnvironment.entries[setting.key]?.value.items == [value])
            let given = setting.kind == .flag ? [setting.key.option] : ["\(setting.key.option)=\(value)"]
            let fromOptions = ExampleCatalogue.resolve(arguments: given)
            #expect(fromOptions.entries[setting.key]?.value.items == [value])
        }
        #expect(SettingKey("room.max-age").variable == "LONGLINE_ROOM_MAX_AGE")
        #expect(SettingKey("room.max-age").option == "--room-max-age")
    }

    @Test("A list of a stronger place takes the whole list's place; variables divide lists by blanks")
    func lists() {
        let host = SettingKey("host")
        let file = "host: [a, b]\n"
        #expect(ExampleCatalogue.resolve(file: file).entries[host]?.value == .list(["a", "b"]))
        #expect(
            ExampleCatalogue.resolve(file: file, environment: ["LONGLINE_HOST": " c  d,e "]).entries[host]?.value
                == .list(["c", "d,e"]))
        #expect(
            ExampleCatalogue.resolve(file: file, arguments: ["--host", "f", "--host=g"]).entries[host]?.value
                == .list(["f", "g"]))
    }

    @Test("What is wrong in the environment is told by the variable's name; unknown names are warned of")
    func environment() {
        let settings = ExampleCatalogue.resolve(environment: [
            "LONGLINE_PORT": "many", "LONGLINE_HOSST": "x", "LONGLINE_CONFIG": "c.yaml", "PORT": "x",
        ])
        #expect(
            settings.problems.map { "\($0)" } == ["environment: LONGLINE_PORT: port: 'many' is no whole number"])
        #expect(
            settings.warnings.map { "\($0)" } == [
                "environment: LONGLINE_HOSST: there is no such setting, did you mean LONGLINE_HOST?"
            ])
    }

    @Test("What the command line does not say is handed on as options, a secret never")
    func arguments() {
        let settings = ExampleCatalogue.resolve(
            file: "host: [a, b]\nport: 1\ntrust-all: true\npublish: {rate: 5}\n",
            environment: ["LONGLINE_AUTHORIZE_TOKEN": "hunter2", "LONGLINE_PUBLISH_RATE": "6"],
            arguments: ["--port", "3"])
        #expect(
            settings.arguments(ExampleCatalogue.catalogue)
                == ["--host=a", "--host=b", "--publish-rate=6", "--trust-all"])
        let less = settings.arguments(ExampleCatalogue.catalogue, without: [SettingKey("host")])
        #expect(less == ["--publish-rate=6", "--trust-all"])
    }

    @Test("The command line is looked through for settings, and passed on as it is")
    func commandLine() {
        let given = ["--data-directory", "d", "--config", "f.yaml", "--trust-all", "-x", "--", "--port", "1"]
        let line = SettingsCommandLine(given, catalogue: ExampleCatalogue.catalogue)
        #expect(line.file == "f.yaml")
        #expect(line.arguments == ["--data-directory", "d", "--trust-all", "-x", "--", "--port", "1"])
        #expect(line.values == [SettingKey("data"): .single("d"), SettingKey("trust-all"): .single("true")])
        let inline = SettingsCommandLine(["--config=g", "--port"], catalogue: ExampleCatalogue.catalogue)
        #expect(inline.file == "g" && inline.values.isEmpty && inline.arguments == ["--port"])
    }
}
