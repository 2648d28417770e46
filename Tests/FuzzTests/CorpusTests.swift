import Foundation
import FuzzTargets
import Testing

/// Every input that is kept, through the entry points that `scripts/fuzz` uses: seeds, and what was found once.
@Suite struct CorpusTests {
    private static func inputs(_ target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Corpus").appendingPathComponent(target.rawValue)
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .sorted { $0.path < $1.path }
            .map { (name: $0.lastPathComponent, bytes: Array(try Data(contentsOf: $0))) }
    }

    @Test("inputs that are kept pass", arguments: FuzzTarget.allCases)
    func inputsThatAreKeptPass(target: FuzzTarget) throws {
        let inputs = try Self.inputs(target)
        #expect(inputs.count >= 5)
        for (name, bytes) in inputs {
            #expect(throws: Never.self, "\(target)/\(name)") { try bytes.withUnsafeBytes { try target.run($0) } }
        }
    }
}
