import Foundation
import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// What can be read, has its place, and still can't be: the second table of docs/protocol.md section 24, row by row. What a session
/// decides alone is done here; of what the store or other sessions decide, the tests are named that do it.
@Suite("Specified answers")
struct SpecifiedAnswerTests {
    private struct Row: Hashable, CustomStringConvertible {
        let frame: String
        let field: String
        let what: String
        let gets: String
        var key: String { "\(frame) | \(field) | \(what)" }
        var description: String { key }
    }

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static var rows: [Row] {
        get throws {
            let text = try String(contentsOf: root.appendingPathComponent("docs/protocol.md"), encoding: .utf8)
            let section = try #require(
                text.components(separatedBy: "What is read, has its place, and still can't be:").last)
            var rows: [Row] = []
            for line in section.split(separator: "\n", omittingEmptySubsequences: false).drop(while: \.isEmpty) {
                guard line.hasPrefix("|") else { break }
                let cells = line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false).map {
                    $0.trimmingCharacters(in: .whitespaces)
                }
                try #require(cells.count == 4, "\(line)")
                rows.append(Row(frame: cells[0], field: cells[1], what: cells[2], gets: cells[3]))
            }
            return Array(rows.dropFirst(2))
        }
    }

    @Test("Each row is done here, or by the test that is named for it")
    func isComplete() throws {
        let rows = try Self.rows
        #expect(rows.count > 50)
        let keys = Set(rows.map(\.key))
        let named = Set(SpecifiedAnswers.byOthers.keys)
        let done = Set(SpecifiedAnswers.here.keys)
        #expect(keys.subtracting(named).subtracting(done).isEmpty, "rows without a test")
        #expect(named.union(done).subtracting(keys).isEmpty, "tests without a row")
        #expect(named.isDisjoint(with: done))
        for (key, place) in SpecifiedAnswers.byOthers {
            let file = Self.root.appendingPathComponent("Tests/\(place.file).swift")
            let source = try String(contentsOf: file, encoding: .utf8)
            #expect(source.contains("func \(place.function)("), "\(key): \(place.file) has no \(place.function)")
        }
    }

    @Test("What a session decides alone is as the table says", arguments: SpecifiedAnswers.here.keys.sorted())
    func answers(key: String) throws {
        let row = try #require(try Self.rows.first { $0.key == key })
        let answer = try #require(SpecifiedAnswers.here[key])
        #expect(row.gets == answer(), "\(key) gets \(answer()), and the table says \(row.gets)")
    }
}
