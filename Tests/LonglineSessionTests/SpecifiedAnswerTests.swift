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
        let names = try Self.codeNames
        for row in rows {
            guard let places = SpecifiedAnswers.byOthers[row.key] else { continue }
            var text = ""
            for place in places {
                let body = try Self.body(of: place.function, in: place.file)
                #expect(body != nil, "\(row.key): \(place.file) has no \(place.function)")
                text += body ?? ""
            }
            for code in Self.codes(in: row.gets) {
                let name = try #require(names[code], "\(row.key): there is no code \(code)")
                #expect(text.contains(".\(name)"), "\(row.key): no test that is named for it expects \(name)")
            }
        }
    }

    /// A test's source, from its first line to its last.
    private static func body(of function: String, in file: String) throws -> String? {
        let source = try String(contentsOf: root.appendingPathComponent("Tests/\(file).swift"), encoding: .utf8)
        let lines = source.components(separatedBy: "\n").drop { !$0.contains("func \(function)(") }
        guard !lines.isEmpty else { return nil }
        return lines.prefix { $0 != "    }" }.joined(separator: "\n")
    }

    /// The codes that a row's answer names, ranges included.
    private static func codes(in answer: String) -> [UInt32] {
        var codes: [UInt32] = []
        var isRange = false
        for word in answer.split(whereSeparator: { " ,".contains($0) }) {
            if let code = UInt32(word) {
                codes += isRange ? Array(((codes.last ?? 0) + 1)...code) : [code]
                isRange = false
            } else {
                isRange = word == "to" && !codes.isEmpty
            }
        }
        return codes
    }

    /// What the specification calls its close codes and refusals.
    private static var codeNames: [UInt32: String] {
        get throws {
            let text = try String(contentsOf: root.appendingPathComponent("docs/protocol.md"), encoding: .utf8)
            var names: [UInt32: String] = [:]
            for line in text.split(separator: "\n") where line.hasPrefix("| ") {
                let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                guard cells.count >= 3, let code = UInt32(cells[0]), cells[1].allSatisfy(\.isLetter) else { continue }
                // Bytes with listed values have tables as well, before those.
                names[code] = cells[1]
            }
            return names
        }
    }

    @Test("What a session decides alone is as the table says", arguments: SpecifiedAnswers.here.keys.sorted())
    func answers(key: String) throws {
        let row = try #require(try Self.rows.first { $0.key == key })
        let answer = try #require(SpecifiedAnswers.here[key])
        #expect(row.gets == answer(), "\(key) gets \(answer()), and the table says \(row.gets)")
    }
}
