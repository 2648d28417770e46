import Foundation

/// What this process is asked to be: a benchmark starts itself again as its server and its client, so that each has a core
/// and CPU time of its own.
public struct Role {
    /// Its name.
    public let name: String
    /// What follows the name on the command line.
    public let arguments: [String]

    /// nil: this is the process that measures.
    public static var current: Role? {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3, arguments[1] == "--role" else { return nil }
        return Role(name: arguments[2], arguments: Array(arguments.dropFirst(3)))
    }

    /// Tells the parent something, at once.
    public static func report(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
}
