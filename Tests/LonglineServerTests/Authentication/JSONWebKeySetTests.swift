import LonglineWire
import Testing

@testable import LonglineServer

/// What is read as a set of keys, and what is none.
@Suite(.timeLimit(.minutes(1))) struct JSONWebKeySetTests {
    /// The keys of RFC 8037 appendix A.2 and RFC 7517 appendix A.1.
    private static let ed25519 =
        #"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
    private static let p256 =
        #"{"kty":"EC","crv":"P-256","kid":"ec","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","#
        + #""y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#

    private func set(_ keys: String...) throws -> JSONWebKeySet {
        try JSONWebKeySet(json: Array("{\"keys\":[\(keys.joined(separator: ","))]}".utf8))
    }

    @Test func aSetIsReadAndWrittenAgain() throws {
        let read = try set(Self.ed25519, Self.p256)
        #expect(read.keys.map(\.keyID) == ["ed", "ec"] && read.keys.map(\.algorithm) == [.edDSA, .es256])
        let again = try JSONWebKeySet(json: read.json)
        #expect(again.keys.map(\.keyID) == ["ed", "ec"])
        #expect(again.keys.map(\.pem) == read.keys.map(\.pem))
    }

    @Test(arguments: TokenAlgorithm.allCases) func aKeyOfASetVerifiesTokens(algorithm: TokenAlgorithm) async throws {
        let key = SigningKey.generate(algorithm)
        let read = try JSONWebKeySet(json: JSONWebKeySet(keys: [key.verificationKey]).json)
        let verifier = await TokenVerifier(keys: read.keys, tenants: nil)
        let token = try await TokenSigner(key: key).sign(try goodClaims())
        #expect(try await verifier.verify(token, now: now).user.description == "alice")
    }

    @Test func keysForOthersArePassedOver() throws {
        let read = try set(
            #"{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}"#, #"{"kty":"oct","k":"AAAA"}"#,
            #"{"kty":"OKP","crv":"X25519","kid":"x","x":"AAAA"}"#, #"{"kty":"EC","crv":"P-384","kid":"p","x":"A"}"#,
            Self.p256.replacing("\"kid\"", with: "\"use\":\"enc\",\"kid\""),
            Self.p256.replacing("\"kid\"", with: "\"alg\":\"ECDH-ES\",\"kid\""),
            Self.ed25519.replacing("\"kid\"", with: "\"use\":\"sig\",\"alg\":\"EdDSA\",\"x5t\":\"AAAA\",\"kid\""))
        #expect(read.keys.map(\.keyID) == ["ed"])
    }

    @Test(arguments: [
        "", "null", "[]", "{}", #"{"keys":{}}"#, #"{"keys":[]}"#, #"{"keys":[{}]}"#,
        #"{"keys":[{"kty":"RSA","kid":"r"}]}"#,
        "{\"keys\":[\(ed25519),\(ed25519)]}",
        "{\"keys\":[\(ed25519.replacing("\"kid\":\"ed\",", with: ""))]}",
        "{\"keys\":[\(ed25519.replacing("HURo", with: "HUR"))]}",
        "{\"keys\":[\(ed25519),\(p256.replacing("IFyM", with: "IFAM"))]}",
        "{\"keys\":[\((0...64).map { ed25519.replacing("\"ed\"", with: "\"\($0)\"") }.joined(separator: ","))]}",
    ])
    func halfASetIsNoSet(text: String) async throws {
        #expect(try await authenticationFailure { _ = try JSONWebKeySet(json: Array(text.utf8)) } == .keyUnusable)
    }
}
