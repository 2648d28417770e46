import Foundation
import HTTPTypes
import Testing

@testable import LonglineControl

@Suite("The OpenAPI document", .timeLimit(.minutes(1))) struct OpenAPITests {
    @Test("has every route, and no other")
    func routes() async throws {
        try await withControl { service in
            let documented = Set(OpenAPIDocument.shared.operations.keys)
            let there = Set(
                service.control.responder.table.routes.map {
                    OpenAPIDocument.Operation(method: $0.method.rawValue, path: $0.path)
                })
            #expect(documented == there)
            // Each answers something else than "there is nothing here".
            for operation in documented {
                let path = operation.path.replacing("{id}", with: "x").replacing("{user}", with: "y")
                let answer = try await service.ask(known { .init(rawValue: operation.method) ?? .get }, path)
                #expect(answer.status != 404 && answer.status != 405, "\(operation)")
            }
        }
    }

    @Test("names every type of problem")
    func problems() {
        #expect(OpenAPIDocument.shared.problems == Set(Problem.Kind.allCases.map(\.uri)))
    }

    @Test("names every status that a problem of the route may have")
    func statuses() {
        for (operation, statuses) in OpenAPIDocument.shared.operations {
            #expect(statuses.contains { $0 < 300 }, "\(operation) never works")
            #expect(statuses.isSuperset(of: [500, 503]), "\(operation) never fails")
        }
    }

    @Test("takes a payload in base64 with its padding, and no other text")
    func base64() throws {
        let text = String(decoding: PackageResources.openapi_yaml, as: UTF8.self)
        let pattern = try #require(text.firstMatch(of: /contentEncoding: base64, pattern: "([^"]+)"/))
        let regex = try Regex(String(pattern.1))
        for good in ["", "YQ==", "YWI=", "YWJj", "YWJjZA=="] {
            #expect(try regex.wholeMatch(in: good) != nil, "\(good)")
        }
        for bad in ["Y", "YQ", "YQ=", "Y===", "YQ==YQ==", "Y-_="] {
            #expect(try regex.wholeMatch(in: bad) == nil, "\(bad)")
        }
    }

    @Test("is served as it is")
    func served() async throws {
        try await withControl { service in
            let answer = try await service.ask(.get, "/openapi.yaml", on: .service)
            #expect(answer.status == 200 && answer.body == Data(PackageResources.openapi_yaml))
        }
    }
}
