public import Foundation

/// A program of this package that a test runs as a process of its own.
public enum HelperProgram {
    /// Where it is: beside the test bundle that runs.
    /// - Throws: `CocoaError` with `fileNoSuchFile` when it isn't there.
    public static func url(_ name: String) throws -> URL {
        guard let path = CommandLine.arguments.first(where: { $0.contains(".xctest") }) ?? CommandLine.arguments.first
        else { throw CocoaError(.fileNoSuchFile) }
        var folder = URL(fileURLWithPath: path).deletingLastPathComponent()
        while folder.path != "/" {
            let candidate = folder.appendingPathComponent(name)
            if FileManager.default.isExecutableFile(atPath: candidate.path) { return candidate }
            folder.deleteLastPathComponent()
        }
        throw CocoaError(.fileNoSuchFile)
    }
}
