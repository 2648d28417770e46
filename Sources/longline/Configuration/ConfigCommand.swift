import ArgumentParser
import Foundation
import LonglineSettings

/// Looks at a server's configuration.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check a server's configuration, show it, or list what can be set.",
        discussion: """
            'longline server' takes its settings from a YAML file (--config FILE or LONGLINE_CONFIG), from the environment \
            and from the command line; the later of these counts. A key's parts, joined by hyphens, are the option; in upper \
            case, with underscores and behind LONGLINE_, the variable: publish.rate is --publish-rate and \
            LONGLINE_PUBLISH_RATE.
            """,
        subcommands: [Check.self, Show.self, Keys.self])

    /// The file that is looked at.
    struct File: ParsableArguments {
        @Argument(
            help: """
                The configuration file; by default that which LONGLINE_CONFIG names, else \(ServerInvocation.installedPath) \
                if there is one.
                """)
        var file: String?

        var invocation: ServerInvocation {
            let environment = ProcessInfo.processInfo.environment
            let installed = ServerInvocation.installedPath
            var arguments = file.map { ["--config", $0] } ?? []
            if file == nil, environment["LONGLINE_CONFIG"] ?? "" == "",
                FileManager.default.fileExists(atPath: installed)
            {
                arguments = ["--config", installed]
            }
            return ServerInvocation(arguments: arguments, environment: environment)
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say what is wrong with a configuration.",
            discussion: """
                Every problem is named with file, line and key. Variables of the environment are checked with the file. \
                Ends with status 0 if a server would start with it, and with 1 if not.
                """)

        @OptionGroup var file: File

        func run() throws {
            let invocation = file.invocation
            let outcome = invocation.evaluate()
            for warning in outcome.settings.warnings { Output.report("warning: \(warning)") }
            for warning in outcome.warnings { Output.report("warning: \(warning)") }
            var problems = outcome.problems
            if let error = outcome.commandLineError {
                problems.append(SettingProblem(nil, ServerCommand.message(for: error)))
            }
            for problem in problems { Output.report("error: \(problem)") }
            guard problems.isEmpty else { throw ExitCode(1) }
            let number = outcome.settings.entries.count
            try Terminal.say("\(invocation.path ?? "no file"): good, \(number) setting\(number == 1 ? "" : "s")")
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the settings that a server would run with, and where each comes from.",
            discussion: "Secrets are not shown. Ends with status 1 if something is wrong: see 'longline config check'.")

        @OptionGroup var file: File

        func run() throws {
            let outcome = file.invocation.evaluate()
            try Terminal.say(SettingsTable.effective(outcome.settings, ServerSettings.catalogue))
            guard outcome.command != nil else {
                Output.report("error: 'longline config check' says what is wrong")
                throw ExitCode(1)
            }
        }
    }

    struct Keys: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List all settings: type, default, meaning, and whether SIGHUP applies them.")

        @Flag(help: "As a table in Markdown.")
        var markdown = false

        func run() throws {
            let catalogue = ServerSettings.catalogue
            try Terminal.say(markdown ? SettingsTable.markdown(catalogue) : SettingsTable.keys(catalogue))
        }
    }
}
