import ArgumentParser
import Foundation
import LonglineSettings

/// Where the process begins.
@main
enum Program {
    /// A configuration that is wrong: what sysexits.h calls EX_CONFIG.
    private static let badConfiguration: Int32 = 78

    static func main() async {
        var arguments = Array(CommandLine.arguments.dropFirst())
        let questions: Set<String> = ["-h", "--help", "--version", "--experimental-dump-help"]
        if arguments.first == "server", questions.isDisjoint(with: arguments) {
            arguments = ["server"] + withSettings()
        }
        await Longline.main(arguments)
    }

    /// What the command line says, with what file and environment say before it. Ends the process when they are wrong.
    private static func withSettings() -> [String] {
        let invocation = ServerInvocation.ofThisProcess
        let outcome = invocation.evaluate()
        guard outcome.problems.isEmpty else {
            let lines = outcome.problems.map { "error: \($0)\n" }.joined()
            FileHandle.standardError.write(Data(lines.utf8))
            exit(badConfiguration)
        }
        return outcome.settings.arguments(ServerSettings.catalogue) + invocation.commandLine.arguments
    }
}
