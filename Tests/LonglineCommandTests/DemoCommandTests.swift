import Foundation
import LonglineTestKit
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite("longline demo", .timeLimit(.minutes(2)))
struct DemoCommandTests {
    @Test(
        "Whoever ends it leaves neither its server nor its folder behind, and it takes no settings that are for others",
        arguments: [SIGHUP, SIGINT])
    func interrupted(signal: Int32) async throws {
        let folder = try TemporaryFolder()
        let demo = try ToolProcess(
            ["demo"],
            environment: ["TMPDIR": folder.path, "LONGLINE_CONFIG": folder.file("absent.yaml"), "LONGLINE_PORT": "1"])
        // All four devices are made once the server is ready.
        func devices() -> Int {
            let files = (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? []
            return files.filter { $0.hasSuffix("/client.sqlite") }.count
        }
        while devices() < 4 { await Task.yield() }
        demo.signal(signal)
        // The server writes to the same pipe, whose end is waited for: so it is gone, too.
        #expect(await demo.status() == 128 + signal, "\(demo.output)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }
}
