import Crypto
import Foundation
import GRDB
import HTTPTypes
import JWTKit
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineWire
import Testing

@testable import LonglineControl

@Suite("Tokens", .timeLimit(.minutes(2))) struct TokenTests {
    private struct Claims: JWTPayload {
        var sub: String
        var tenant: String
        var loginEpoch: UInt64

        enum CodingKeys: String, CodingKey {
            case sub, tenant
            case loginEpoch = "login_epoch"
        }

        func verify(using algorithm: some JWTAlgorithm) async throws {}
    }

    /// What a token says, verified by the keys that everybody gets.
    private func claims(_ token: String, _ service: ControlService) async throws -> Claims {
        let set = try await service.ask(.get, "/.well-known/jwks.json", on: .service)
        #expect(set.headers[.cacheControl] == "public, max-age=60")
        let keys = JWTKeyCollection()
        try await keys.add(jwksJSON: String(decoding: set.body, as: UTF8.self))
        return try await keys.verify(token, as: Claims.self)
    }

    @Test("an issued token opens a session")
    func connects() async throws {
        try await withControl { service in
            let client = try await service.client("ann", key: try await service.appKey())
            try await client.connect()
            #expect(service.server.devices(of: known { try UserID("ann") }, in: ControlService.tenant).count == 1)
            await client.disconnect()
        }
    }

    @Test("logins are numbered over all devices of a user, and a token without a login has its device's number")
    func logins() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            func epoch(_ device: String, login: Bool) async throws -> UInt64 {
                let token = try await service.token("ann", device, login: login, key: key)
                let claims = try await claims(token, service)
                #expect(claims.sub == "ann" && claims.tenant == "acme")
                return claims.loginEpoch
            }
            #expect(try await epoch("phone", login: false) == 0)
            let phone = try await epoch("phone", login: true)
            let tablet = try await epoch("tablet", login: true)
            #expect(tablet > phone && phone > 0)
            #expect(try await epoch("phone", login: false) == phone)
            #expect(try await epoch("phone", login: true) > tablet)
            #expect(try await epoch("tablet", login: false) == tablet)
        }
    }

    @Test("a login that is asked for twice under one key is one login")
    func idempotentLogin() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let order = #"{"user":"ann","device":"phone","login":true}"#
            func issue(_ body: String) async throws -> ControlService.Answer {
                try await service.ask(.post, "/v1/tokens", key: key, json: body, headers: [.idempotencyKey: "one"])
            }
            let first = try await issue(order)
            let again = try await issue(order)
            for member in ["token_id", "login_epoch", "issued_at", "expires_at"] {
                #expect(try again.object()[member] as? NSObject == first.object()[member] as? NSObject, "\(member)")
            }
            let claims = (
                try await claims(first.string("token"), service), try await claims(again.string("token"), service)
            )
            #expect(claims.0.loginEpoch == claims.1.loginEpoch)
            let reused = try await issue(order.replacing("phone", with: "tablet"))
            #expect(reused.status == 422 && reused.problem == "idempotency-key-reused")
            // The token itself is not kept.
            let kept = try await service.database.pool.read {
                try Data.fetchOne($0, sql: "SELECT result FROM idempotency")
            }
            let text = String(decoding: try #require(kept), as: UTF8.self)
            let token = try first.string("token")
            #expect(text.contains("login_epoch") && !text.contains(token))
        }
    }

    @Test("what is ordered is checked")
    func checked() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            for (body, member) in [
                (#"{"device":"phone"}"#, "'user'"), (#"{"user":"a b","device":"phone"}"#, "'user'"),
                (#"{"user":"ann","device":"phone","lifetime":0}"#, "'lifetime'"),
                (#"{"user":"ann","device":"phone","lifetime":99999999}"#, "'lifetime'"),
                (#"{"user":"ann","device":"phone","scope":"fly"}"#, "'scope'"),
                (#"{"user":"ann","device":"phone","platform":""}"#, "'platform'"),
                (#"{"user":"ann","device":"phone","scope":"publish fly"}"#, "'scope'"),
                (#"{"user":"ann","device":"phone","scope":"join:room/"}"#, "'scope'"),
                (#"{"user":"ann","device":"phone","login":null}"#, "'login'"),
                (#"{"user":"ann","device":"phone","logim":true}"#, "not known"),
                (#"{"user":7,"device":"phone"}"#, "'user'"), ("[]", "the body"), ("{", "the body"),
            ] {
                let answer = try await service.ask(.post, "/v1/tokens", key: key, json: body)
                #expect(answer.status == 400 && answer.problem == "invalid-request", "\(body)")
                #expect(try answer.string("detail").contains(member), "\(body)")
            }
        }
    }

    @Test("a life without a limit is one of a century at most")
    func longLife() async throws {
        try await withControl({ $0.limits.tokenLifetime = .seconds(Int64.max) }) { service in
            let key = try await service.appKey()
            func ask(_ lifetime: Int) async throws -> Int {
                try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"phone","lifetime":\#(lifetime)}"#
                ).status
            }
            #expect(try await ask(.max) == 400)
            #expect(try await ask(100 * 366 * 86_400) == 201)
        }
    }

    @Test("a revocation ends live sessions at once, and voids what was issued before")
    func revocation() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let token = try await service.token("ann", "laptop", key: key)
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).status == 200)
            let client = try await service.client("ann", key: key)
            try await client.connect()
            let answer = try await service.ask(.post, "/v1/tokens/revoke", key: key, json: #"{"user":"ann"}"#)
            #expect(answer.status == 204)
            #expect(service.server.devices(of: known { try UserID("ann") }, in: ControlService.tenant) == [])
            #expect(try await service.ask(.get, "/v1/access", key: token, on: .service).status == 401)
            // A token that is issued now is good again.
            let fresh = try await service.token("ann", "laptop", key: key)
            #expect(try await service.ask(.get, "/v1/access", key: fresh, on: .service).status == 200)
            await client.disconnect()
        }
    }

    @Test("a token is revoked by its ID, and a device alone")
    func one() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            func issue(_ device: String) async throws -> (token: String, id: String) {
                let answer = try await service.ask(
                    .post, "/v1/tokens", key: key, json: #"{"user":"ann","device":"\#(device)"}"#)
                return (try answer.string("token"), try answer.string("token_id"))
            }
            func isGood(_ token: String) async throws -> Bool {
                try await service.ask(.get, "/v1/access", key: token, on: .service).status == 200
            }
            let (first, second, tablet) = (
                try await issue("phone"), try await issue("phone"), try await issue("tablet")
            )
            var answer = try await service.ask(
                .post, "/v1/tokens/revoke", key: key, json: #"{"token_id":"\#(first.id)"}"#)
            #expect(answer.status == 204)
            #expect(try await !isGood(first.token))
            #expect(try await isGood(second.token))
            answer = try await service.ask(
                .post, "/v1/tokens/revoke", key: key, json: #"{"user":"ann","device":"phone"}"#)
            #expect(answer.status == 204)
            #expect(try await !isGood(second.token))
            #expect(try await isGood(tablet.token))
            // Seconds where milliseconds belong: 1970, and so forgotten at the next sweep.
            let seconds = #"{"token_id":"\#(first.id)","expires_at":1900000000}"#
            for body in ["{}", #"{"device":"phone"}"#, #"{"token_id":"x","user":"ann"}"#, #"{"token_id":""}"#, seconds]
            {
                #expect(try await service.ask(.post, "/v1/tokens/revoke", key: key, json: body).status == 400)
            }
        }
    }

    @Test("a rotated key signs, and both verify meanwhile")
    func rotation() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let before = try await service.token("ann", key: key)
            try await service.directory.rotateSigningKey(keep: 1) {
                // The new key is published before it signs.
                let set = try await service.ask(.get, "/.well-known/jwks.json", on: .service)
                #expect(try set.array("keys").count == 2)
                _ = try await claims(try await service.token("ann", key: key), service)
            }
            let after = try await service.token("ann", key: key)
            #expect(before.split(separator: ".")[0] != after.split(separator: ".")[0])
            for token in [before, after] { #expect(try await claims(token, service).sub == "ann") }
        }
    }

    @Test("the control layer follows a rotation at once when the server is told, and signs with no key that is void")
    func told() async throws {
        try await withControl({ $0.keyInterval = .seconds(3_600) }) { service in
            let key = try await service.appKey()
            func published() async throws -> Set<String> {
                let set = try await service.ask(.get, "/.well-known/jwks.json", on: .service)
                #expect(set.headers[.cacheControl] == "public, max-age=60")
                return Set(try set.array("keys").compactMap { ($0 as? [String: Any])?["kid"] as? String })
            }
            func isGood() async throws -> Bool {
                let token = try await service.token("ann", key: key)
                return try await service.ask(.get, "/v1/access", key: token, on: .service).status == 200
            }
            let tell = { @Sendable in try await service.server.reloadTokenKeys() }
            let first = try service.directory.signingKey().keyID
            #expect(try await published() == [first])
            #expect(try await isGood())
            let second = try await service.directory.prepareSigningKey(trusted: tell).keyID
            #expect(try await published() == [first, second])
            #expect(try await isGood())
            #expect(try await service.directory.rotateSigningKey(keep: 0, trusted: tell).keyID == second)
            try await tell()
            #expect(try await published() == [second])
            #expect(try await isGood())
            let third = try await service.directory.rotateSigningKey(keep: 1, trusted: tell).keyID
            try await tell()
            #expect(try await published() == [second, third])
            #expect(try await isGood())
            #expect(try service.directory.removeTrustedKey(second))
            try await tell()
            #expect(try await published() == [third])
            #expect(try await isGood())
        }
    }
}
