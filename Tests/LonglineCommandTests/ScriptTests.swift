import Foundation
import LonglineTestKit
import Testing

/// What the scripts have in common, in a shell of its own; none of it builds anything.
@Suite("Scripts", .timeLimit(.minutes(1)))
struct ScriptTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    /// Runs lines of bash in a folder; `$1` is the package's.
    private func run(
        _ lines: String, in folder: String, _ environment: [String: String] = [:]
    ) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(filePath: "/bin/bash")
        process.arguments = ["-c", lines, "-", Self.root]
        process.currentDirectoryURL = URL(filePath: folder)
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, given in given }
        process.standardInput = FileHandle.nullDevice
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    @Test("A path goes by the caller's folder, whatever that is called")
    func callersPaths() throws {
        let folder = try TemporaryFolder()
        let place = folder.file("two words")
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        try folder.write("two words/a file", "")
        let ended = try run(
            """
            source "$1/scripts/lib/common.sh"
            [ "$PWD" -ef "$1" ]
            [ -e "$(from_caller "a file")" ]
            from_caller /a/file
            """, in: place)
        #expect(ended.status == 0 && ended.output == "/a/file\n", "\(ended.output)")
        withExtendedLifetime(folder) {}
    }

    @Test("The package's folder is found where CDPATH names another like it")
    func searchPath() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(
            atPath: folder.file("scripts/lib"), withIntermediateDirectories: true)
        let ended = try run(
            "source scripts/lib/common.sh; [ \"$root\" -ef \"$1\" ]", in: Self.root, ["CDPATH": folder.path])
        #expect(ended.status == 0, "\(ended.output)")
        withExtendedLifetime(folder) {}
    }

    @Test("Where there is no Swift nothing is installed")
    func noSwift() throws {
        let folder = try TemporaryFolder()
        let ended = try run(
            """
            source "$1/scripts/lib/common.sh"
            install_system_packages() { echo installed; }
            PATH=$caller_directory
            setup
            """, in: folder.path)
        #expect(ended.status == 1 && ended.output.contains("there is no 'swift' in PATH."), "\(ended.output)")
        #expect(!ended.output.contains("installed"), "\(ended.output)")
        withExtendedLifetime(folder) {}
    }

    @Test("The toolchain is found where swift is a link to something else, as swiftly's is")
    func toolchain() throws {
        let folder = try TemporaryFolder()
        let swiftc = try folder.write(
            "swiftc",
            """
            #!/bin/sh
            printf '  "paths": {\\n    "runtimeResourcePath": "/home/a b/6.2/usr/lib/swift"\\n  }\\n'
            """)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: swiftc)
        let ended = try run(
            """
            source "$1/scripts/lib/common.sh"
            PATH=$caller_directory:$PATH
            swift_home
            """, in: folder.path)
        #expect(ended.status == 0 && ended.output == "/home/a b/6.2/usr\n", "\(ended.output)")
        withExtendedLifetime(folder) {}
    }

    @Test("What tests started ends with them, also what left their process group")
    func descendants() throws {
        let folder = try TemporaryFolder()
        let ended = try run(
            """
            source "$1/scripts/lib/common.sh"
            cd "$caller_directory"
            bash -c 'setsid sleep 600 & echo $! >started; mv started child; wait' </dev/null >/dev/null 2>&1 &
            parent=$!
            until [ -s child ]; do :; done
            end_all $parent
            status=0
            wait $parent || status=$?
            [ $status = 137 ]
            # Where nobody waits for an orphan, its entry stays.
            while grep -q '^State:.[^Z]' "/proc/$(cat child)/status" 2>/dev/null; do :; done
            """, in: folder.path)
        #expect(ended.status == 0, "\(ended.output)")
        withExtendedLifetime(folder) {}
    }
}
