import Foundation
import HTTPTypes
import Testing

@testable import LonglineControl

/// The paths, methods and statuses of the OpenAPI document, read by its indentation.
struct OpenAPIDocument: Sendable {
    struct Operation: Hashable, Sendable {
        var method: String
        var path: String
    }

    static let shared = OpenAPIDocument(String(decoding: PackageResources.openapi_yaml, as: UTF8.self))

    /// The statuses of each operation.
    let operations: [Operation: Set<Int>]
    /// The problems' types that the document names.
    let problems: Set<String>

    init(_ text: String) {
        var operations: [Operation: Set<Int>] = [:]
        var problems: Set<String> = []
        var (path, method) = ("", "")
        var isInPaths = false
        for line in text.split(separator: "\n") {
            let indent = line.prefix { $0 == " " }.count
            let word = line.dropFirst(indent)
            if indent == 0 { isInPaths = word == "paths:" }
            if word.hasPrefix("- urn:longline:problem:") { problems.insert(String(word.dropFirst(2))) }
            guard isInPaths, word.hasSuffix(":") || indent == 8 else { continue }
            switch indent {
            case 2: path = String(word.dropLast())
            case 4 where ["get", "post", "put", "delete"].contains(word.dropLast()):
                method = word.dropLast().uppercased()
                operations[Operation(method: method, path: path)] = []
            case 8 where word.hasPrefix("\""):
                if let status = Int(word.dropFirst().prefix(3)) {
                    operations[Operation(method: method, path: path), default: []].insert(status)
                }
            default: break
            }
        }
        self.operations = operations
        self.problems = problems
    }

    /// The operation of a request, if it is one.
    func operation(_ method: HTTPRequest.Method, _ path: String) -> Operation? {
        let asked = path.prefix { $0 != "?" }.split(separator: "/", omittingEmptySubsequences: false)
        let name = method == .head ? "GET" : method.rawValue
        return operations.keys.first { operation in
            let parts = operation.path.split(separator: "/", omittingEmptySubsequences: false)
            return operation.method == name && parts.count == asked.count
                && zip(parts, asked).allSatisfy { $0.hasPrefix("{") ? !$1.isEmpty : $0 == $1 }
        }
    }

    /// Fails the test when an answer is none that the document has.
    func check(_ method: HTTPRequest.Method, _ path: String, _ answer: ControlService.Answer) throws {
        #expect(answer.headers[.requestID]?.count == 16)
        if answer.status >= 400, method != .head {
            #expect(answer.headers[.contentType] == "application/problem+json")
            #expect(problems.contains(try answer.string("type")))
            #expect(try answer.object()["status"] as? Int == answer.status)
            #expect(try answer.string("request_id") == answer.headers[.requestID])
        }
        guard let operation = operation(method, path) else {
            #expect(answer.status == 404 || answer.status == 405)
            return
        }
        let documented = operations[operation] ?? []
        // An operator's route is not there on the other listener.
        #expect(
            documented.contains(answer.status) || answer.status == 404,
            "\(method) \(operation.path) answered \(answer.status), which is not documented")
    }
}
