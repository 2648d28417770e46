import ArgumentParser
import LonglineSettings
import UnixSignals

#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// Where the process begins.
@main
enum Program {
    /// A configuration that is wrong: what sysexits.h calls EX_CONFIG.
    private static let badConfiguration: Int32 = 78

    static func main() async {
        StandardDescriptors.occupy()
        // Whoever read the output or the log may go: that ends a write, not a server with it.
        signal(SIGPIPE, SIG_IGN)
        guard argumentsAreText() else {
            Output.report("Error: an argument is not UTF-8; 'longline send --file' sends any bytes")
            exit(ExitCode.validationFailure.rawValue)
        }
        var arguments = Array(CommandLine.arguments.dropFirst())
        let questions: Set<String> = ["-h", "--help", "--version", "--experimental-dump-help"]
        var start: (settings: ResolvedSettings, hangUps: UnixSignalsSequence)?
        if arguments.first == "server", questions.isDisjoint(with: arguments) {
            // Before anything is read: what changes while the server starts, which may take long, is taken up at the end of that.
            let hangUps = await UnixSignalsSequence(trapping: .sighup)
            let (settings, named) = withSettings()
            arguments = ["server"] + named
            start = (settings, hangUps)
        }
        do {
            var command = try Longline.parseAsRoot(arguments)
            if let server = command as? ServerCommand, let start {
                try await server.serve(start.settings, hangUps: start.hangUps)
            } else if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            end(with: error)
        }
    }

    /// Whether all arguments are UTF-8. Others would be read as other ones, with U+FFFD in them: a message, or the name of a file.
    private static func argumentsAreText() -> Bool {
        (0..<Int(CommandLine.argc)).allSatisfy { index in
            guard let argument = CommandLine.unsafeArgv[index] else { return true }
            var count = 0
            while argument[count] != 0 { count += 1 }
            return String(validating: UnsafeRawBufferPointer(start: argument, count: count), as: UTF8.self) != nil
        }
    }

    /// What the command line says, with what file and environment say before it. Ends the process when they are wrong.
    private static func withSettings() -> (ResolvedSettings, arguments: [String]) {
        let invocation = ServerInvocation.ofThisProcess
        let outcome = invocation.evaluate()
        guard outcome.problems.isEmpty else {
            for problem in outcome.problems { Output.report("error: \(problem)") }
            exit(badConfiguration)
        }
        let arguments = outcome.settings.arguments(ServerSettings.catalogue) + invocation.commandLine.arguments
        return (outcome.settings, arguments)
    }

    /// Says what is wrong, or the help that was asked for, and ends the process.
    private static func end(with error: any Error) -> Never {
        if let error = error as? OutputError, error.isClosedPipe {
            // As it ends everybody who did not ask for more.
            signal(SIGPIPE, SIG_DFL)
            raise(SIGPIPE)
        }
        if let error = error as? ValidationError {
            // Of the command while it ran, not of the parser, who would add how the tool is used, and not the command.
            Output.report("Error: \(Terminal.printable(error.message))")
            exit(ExitCode.validationFailure.rawValue)
        }
        let code = Longline.exitCode(for: error)
        let text = Longline.fullMessage(for: error)
        guard !code.isSuccess else {
            do { try Terminal.say(text) } catch { end(with: error) }
            exit(code.rawValue)
        }
        // A reason may be another's words; what is wrong with the command line is the parser's own, over several lines.
        if !text.isEmpty { Output.report(code == .failure ? Terminal.printable(text) : text) }
        exit(code.rawValue)
    }
}
