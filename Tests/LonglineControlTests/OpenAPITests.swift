import Foundation
import HTTPTypes
import NIOCore
import Synchronization
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
                    .replacing("{offset}", with: "1")
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

    @Test("is held once, however many answers with it wait for readers")
    func heldOnce() async throws {
        try await withControl { service in
            let request = HTTPRequest(method: .get, scheme: "https", authority: "localhost", path: "/openapi.yaml")
            let places = Mutex<[UInt]>([])
            // All are kept, so that none takes another's place in memory.
            let parts = Mutex<[ByteBuffer]>([])
            for _ in 0..<3 {
                let answer = await service.control.responder.respond(
                    to: request, body: ControlService.Parts(parts: []), from: nil, on: .service)
                _ = try await answer.writeBody { part in
                    let place = part.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) }
                    places.withLock { $0.append(place) }
                    parts.withLock { $0.append(part) }
                }
            }
            let addresses = places.withLock { $0 }
            #expect(addresses.count == 3 && Set(addresses).count == 1)
        }
    }
}
