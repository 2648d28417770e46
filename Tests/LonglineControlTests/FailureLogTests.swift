import Foundation
import GRDB
import HTTP3
import HTTPTypes
import Logging
import LonglineStore
import Testing

@testable import LonglineControl
@testable import LonglineServer

@Suite("What the log says of requests that fail", .timeLimit(.minutes(2))) struct FailureLogTests {
    @Test("a failure inside is a line in the log with the request's ID, and no word of it outside")
    func inside() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await service.database.pool.write { try $0.execute(sql: "DROP TABLE logins") }
            let answer = try await service.ask(.post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone"}"#)
            #expect(answer.status == 500 && answer.problem == "internal-error")
            #expect(!String(decoding: answer.body, as: UTF8.self).contains("logins"))
            let id = try #require(answer.headers[.requestID])
            let line = try #require(service.log.lines.first { $0.contains("request=\(id)") })
            #expect(
                line.hasPrefix("error request failed") && line.contains("no such table") && line.contains("/v1/tokens"))
            // So is what a caller did wrong.
            let refused = try await service.ask(.post, "/v1/tokens", json: "{}")
            let other = try #require(refused.headers[.requestID])
            #expect(
                service.log.lines.contains { $0.contains("request=\(other)") && $0.contains("problem=unauthorized") })
        }
    }

    @Test("whoever has no key hides neither what others do, nor what goes wrong")
    func flood() async throws {
        try await withControl({ $0.limits.logLinesPerSecond = 1 }) { service in
            let (key, operatorKey) = (try await service.appKey(), try await service.operatorKey())
            for _ in 0..<100 { #expect(try await service.ask(.post, "/v1/tokens", json: "{}").status == 401) }
            let written = service.log.lines.count { $0.contains("problem=unauthorized") }
            #expect(written < 100)
            // What is missing is counted.
            var dropped = 0.0
            repeat {
                let figures = try await service.ask(.get, "/metrics", key: operatorKey)
                let text = PrometheusText(String(decoding: figures.body, as: UTF8.self))
                dropped = text.samples["longline_log_lines_dropped_total"] ?? 0
            } while dropped < Double(100 - written)
            let revoked = try await service.ask(.post, "/v1/tokens/revoke", key: key, json: #"{"user":"ann"}"#)
            let ended = try await service.ask(.delete, "/v1/users/ann/sessions?tenant=acme", key: operatorKey)
            let drained = try await service.ask(
                .post, "/v1/nodes/\(service.control.nodeID)/drain", key: operatorKey)
            let published = try await service.ask(
                .post, "/v1/channels/all%2Fnews/messages", key: key, json: #"{"sender":"app","text":"x"}"#,
                headers: [.idempotencyKey: "k"])
            let offset = try #require(try published.object()["offset"] as? NSNumber)
            let retracted = try await service.ask(
                .delete, "/v1/channels/all%2Fnews/messages/\(offset)?epoch=\(try published.string("epoch"))",
                key: try await service.key([.retract]))
            let erased = try await service.ask(.delete, "/v1/users/zoe", key: try await service.key([.erase]))
            #expect(try await service.ask(.put, "/v1/rooms/hall/members/bob", key: key).status == 200)
            let deleted = try await service.ask(.delete, "/v1/rooms/hall?sender=app", key: key)
            for (line, answer) in [
                ("revoked", revoked), ("sessions ended", ended), ("node drained", drained),
                // "is being erased" where that takes longer than the request waits.
                ("message retracted", retracted), ("account", erased), ("room deleted", deleted),
            ] {
                let id = try #require(answer.headers[.requestID])
                #expect(
                    service.log.lines.contains { $0.hasPrefix("notice \(line) ") && $0.contains("request=\(id)") })
            }
            try await service.database.pool.write { try $0.execute(sql: "DROP TABLE logins") }
            let failed = try await service.ask(.post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone"}"#)
            let id = try #require(failed.headers[.requestID])
            #expect(
                service.log.lines.contains { $0.hasPrefix("error request failed") && $0.contains("request=\(id)") })
        }
    }

    @Test("a method that there is not is its sender's mistake, and hides nothing that goes wrong")
    func refusedMethods() async throws {
        try await withControl({ $0.limits.logLinesPerSecond = 1 }) { service in
            let key = try await service.appKey()
            for _ in 0..<100 {
                #expect(service.control.responder.refusal(.notImplemented).head.status == .notImplemented)
            }
            let lines = service.log.lines.filter { $0.contains("problem=not-implemented") }
            #expect(lines.allSatisfy { $0.hasPrefix("info request failed") }, "\(lines)")
            try await service.database.pool.write { try $0.execute(sql: "DROP TABLE logins") }
            let failed = try await service.ask(.post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone"}"#)
            let id = try #require(failed.headers[.requestID])
            #expect(
                service.log.lines.contains { $0.hasPrefix("error request failed") && $0.contains("request=\(id)") })
        }
    }

    @Test("a line about what was done says to whom")
    func named() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            for (body, words) in [
                (#"{"user":"ann"}"#, ["what=user", "user=ann"]),
                (#"{"user":"ann","device":"phone"}"#, ["what=device", "user=ann", "device=phone"]),
                (#"{"token_id":"tok-1"}"#, ["what=token", "token_id=tok-1"]),
            ] {
                let answer = try await service.ask(.post, "/v1/tokens/revoke", key: key, json: body)
                let id = try #require(answer.headers[.requestID])
                let line = try #require(
                    service.log.lines.first { $0.hasPrefix("notice revoked ") && $0.contains("request=\(id)") })
                let said = line.split(separator: " ").map(String.init)
                #expect(Set(said).isSuperset(of: words + ["tenant=acme"]), "\(line)")
            }
            let path = "/v1/users/ann/sessions?tenant=acme&device=phone"
            _ = try await service.ask(.delete, path, key: try await service.operatorKey())
            #expect(
                service.log.lines.contains { $0.hasPrefix("notice sessions ended ") && $0.contains("device=phone") })
        }
    }

    @Test("what is refused on purpose is no error, and what went wrong inside is one")
    func levels() {
        let busy = StoreError(.overloaded, message: "too much at once")
        let full = StoreError(.storageFull, message: "no room")
        let deliberate: [Problem] = [
            Problem(.overloaded), Problem(.noAccessPoint), .beingErased, .notRunning(), Problem(reading: busy),
            Problem(answering: ServerError(.notRunning, message: "the server isn't running")),
            Problem(answering: ServerError(.storeUnavailable, message: "not stored", cause: busy)),
        ]
        for problem in deliberate {
            #expect(problem.level == Logger.Level.warning, "\(problem.kind)")
        }
        let failures: [Problem] = [
            Problem(answering: DeadlineExceeded()), Problem(.overloaded, cause: DeadlineExceeded()), .storageFull(),
            Problem(.internalError), Problem(reading: full), Problem(reading: StoreError(.closed, message: "closed")),
            Problem(answering: ServerError(.storeUnavailable, message: "not stored", cause: full)),
            Problem(.internalError, cause: HTTP3Error(.invalidState, "a test's", advice: "")),
        ]
        for problem in failures {
            #expect(problem.level == Logger.Level.error, "\(problem.kind)")
        }
        for code in [HTTP3Error.Code.fieldSectionTooLarge, .streamReset, .connectionClosed] {
            let problem = Problem(.internalError, cause: HTTP3Error(code, "a test's", advice: ""))
            #expect(problem.level == Logger.Level.info, "\(code)")
        }
        for kind in Problem.Kind.allCases where kind.status.code < 500 || kind == .notImplemented {
            #expect(Problem(kind).level == Logger.Level.info, "\(kind)")
        }
    }

    @Test("no log line has a key, a token or a message, whatever was asked")
    func secrets() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let token = try await service.token("ann", key: key)
            let bad = String(key.dropLast(2)) + "zz"
            for credential in [key, token, bad] {
                for (method, path) in [
                    (HTTPRequest.Method.get, "/v1/access"), (.post, "/v1/tokens"), (.get, "/nothing?t=\(credential)"),
                ] {
                    _ = try await service.ask(method, path, key: credential, json: method == .post ? "{" : nil)
                }
            }
            _ = try await service.ask(
                .post, "/v1/channels/room%2Fnone/messages", key: key,
                json: #"{"sender":"app","text":"a word of mine"}"#,
                headers: [.idempotencyKey: "k"])
            let lines = service.log.lines
            #expect(lines.contains { $0.contains("request failed") })
            for secret in [String(key.dropFirst(4)), token, String(bad.dropFirst(4)), "a word of mine"] {
                #expect(!lines.contains { $0.contains(secret) })
            }
        }
    }
}
