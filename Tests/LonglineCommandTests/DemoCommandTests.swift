import Foundation
import LonglineTestKit
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("longline demo", .timeLimit(.minutes(2)))
struct DemoCommandTests {
    /// All four devices are made once the server is ready.
    private func waitForDevices(in folder: TemporaryFolder) async {
        func count() -> Int {
            let files = (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? []
            return files.filter { $0.hasSuffix("/client.sqlite") }.count
        }
        while count() < 4 { await Task.yield() }
    }

    @Test(
        "Whoever ends it leaves neither its server nor its folder behind, and it takes no settings that are for others",
        // What the tests' own process ignores, under nohup or in the background, the demonstration does, too.
        arguments: [SIGHUP, SIGINT, SIGTERM].filter { !DemoCommand.isIgnored($0) })
    func interrupted(signal: Int32) async throws {
        let folder = try TemporaryFolder()
        let demo = try ToolProcess(
            ["demo"],
            environment: ["TMPDIR": folder.path, "LONGLINE_CONFIG": folder.file("absent.yaml"), "LONGLINE_PORT": "1"])
        await waitForDevices(in: folder)
        demo.signal(signal)
        // The server writes to the same pipe, whose end is waited for: so it is gone, too.
        #expect(await demo.status() == 128 + signal, "\(demo.output)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }

    @Test("A directory to keep that is a file is named, in a line")
    func keepInFile() async throws {
        let folder = try TemporaryFolder()
        let file = try folder.write("file", "")
        let said = try await ToolProcess.run(["demo", "--keep", file])
        #expect(said.status == 64 && said.output.hasPrefix("Error: --keep: \(file) can't be made a directory"))
        #expect(!said.output.contains("NSCocoaErrorDomain"), "\(said.output)")
    }

    @Test("Ended while its server starts, it says so by its status and leaves nothing behind")
    func interruptedAtStart() async throws {
        let folder = try TemporaryFolder()
        let demo = try ToolProcess(["demo"], environment: ["TMPDIR": folder.path])
        // The server makes its folder long before it is ready; where it ends in between there would be another status.
        func hasServer() -> Bool {
            let files = (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? []
            return files.contains { $0.hasSuffix("/server") }
        }
        while !hasServer() { await Task.yield() }
        demo.signal(SIGTERM)
        #expect(await demo.status() == 128 + SIGTERM, "\(demo.output)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }

    @Test("Under nohup a hangup does not end it")
    func nohup() async throws {
        let folder = try TemporaryFolder()
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = ["-c", "trap '' HUP; exec \"$TOOL\" demo"]
        process.environment = ProcessInfo.processInfo.environment.merging(
            ["TMPDIR": folder.path, "TOOL": try HelperProgram.url("longline").path]) { _, given in given }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        await waitForDevices(in: folder)
        kill(process.processIdentifier, SIGHUP)
        kill(process.processIdentifier, SIGTERM)
        while process.isRunning { await Task.yield() }
        #expect(process.terminationStatus == 128 + SIGTERM)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }

    @Test("Asking whether a signal is ignored changes nothing about it")
    func askingChangesNothing() throws {
        // Nobody sends it to the tests' own process.
        let number = SIGURG
        var asked = sigaction()
        // signal(2) would not set this.
        asked.sa_flags = SA_ONSTACK
        var before = sigaction()
        let code = sigaction(number, &asked, &before)
        try #require(code == 0)
        defer { sigaction(number, &before, nil) }
        #expect(!DemoCommand.isIgnored(number))
        var now = sigaction()
        sigaction(number, nil, &now)
        #expect(now.sa_flags & SA_ONSTACK != 0)
        signal(number, SIG_IGN)
        #expect(DemoCommand.isIgnored(number))
    }
}
