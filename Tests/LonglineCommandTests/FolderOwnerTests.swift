import Foundation
import LonglineTestKit
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite("A service's folder that root works on", .enabled(if: geteuid() == 0), .timeLimit(.minutes(1)))
struct FolderOwnerTests {
    private static let service = NSNumber(value: 65_534)

    /// The names in a folder that belong to somebody else, and how many there are.
    private func others(in path: String) throws -> (names: [String], count: Int) {
        let names = try FileManager.default.subpathsOfDirectory(atPath: path)
        let others = try names.filter { name in
            let attributes = try FileManager.default.attributesOfItem(atPath: path + "/" + name)
            let owners = [attributes[.ownerAccountID], attributes[.groupOwnerAccountID]] as? [NSNumber]
            return owners != [Self.service, Self.service]
        }
        return (others, names.count)
    }

    @Test("What an operator's commands make there as root belongs to the service, which can go on")
    func commands() async throws {
        let folder = try TemporaryFolder()
        let data = folder.file("data")
        try FileManager.default.createDirectory(
            atPath: data, withIntermediateDirectories: false,
            attributes: [
                .ownerAccountID: Self.service, .groupOwnerAccountID: Self.service, .posixPermissions: 0o700,
            ])
        for command in [
            ["token", "--user", "ann", "--device", "phone"], ["apikey", "create"], ["keys", "prepare"],
            ["keys", "rotate", "--keep", "0"],
        ] {
            let said = try await ToolProcess.run(command + ["--data", data])
            #expect(said.status == 0, "\(command): \(said.output)")
            let found = try others(in: data)
            #expect(found.names.isEmpty && found.count >= 2, "\(command)")
        }
        // A server that was started by hand once is no reason either why the service should not start.
        try await withServer(folder) { _ in }
        let found = try others(in: data)
        #expect(found.names.isEmpty && found.count > 6)
    }

    @Test("A folder that root makes for itself stays root's")
    func ofRoot() async throws {
        let folder = try TemporaryFolder()
        let said = try await ToolProcess.run(
            ["token", "--user", "ann", "--device", "phone", "--data", folder.file("data")])
        #expect(said.status == 0, "\(said.output)")
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder.path) {
            let attributes = try FileManager.default.attributesOfItem(atPath: folder.file(name))
            #expect(attributes[.ownerAccountID] as? NSNumber == 0, "\(name)")
        }
    }
}
