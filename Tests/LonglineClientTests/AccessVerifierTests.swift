import Foundation
import LonglineKeys
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

@Suite("What makes an answer of the control layer believable") struct AccessVerifierTests {
    private static let nonce = "nonce-of-this-question"

    private func question() throws -> AccessVerifier.Question {
        AccessVerifier.Question(
            nonce: Self.nonce,
            holder: TokenHolder(tenant: try TenantID("acme"), user: try UserID("ann"), device: try DeviceID("phone")))
    }

    /// Why an answer is not believed; nil: it is.
    private func fault(_ bytes: [UInt8], _ keys: JSONWebKeySet) throws -> AuthenticationError.Code? {
        let question = try question()
        do throws(ClientError) {
            _ = try AccessVerifier(keys).read(bytes, to: question)
            return nil
        } catch {
            #expect(error.code == .controlAnswerUntrusted && !error.description.contains(Self.nonce))
            return (error.cause as? AuthenticationError)?.code
        }
    }

    /// A JWS that says of itself what it likes.
    private static func forged(_ header: String, _ payload: [UInt8], signature: String = "c2ln") -> String {
        "\(Base64URL.encode(Data(header.utf8))).\(Base64URL.encode(Data(payload))).\(signature)"
    }

    @Test("what a trusted key signed in answer to this question is believed", arguments: TokenAlgorithm.allCases)
    func good(algorithm: TokenAlgorithm) throws {
        let signer = try AccessSigner(algorithm)
        let question = try question()
        let answer = try AccessVerifier(AccessSigner.trust(signer)).read(
            signer.answer(nonce: Self.nonce, points: ["one", "two"]), to: question)
        #expect(answer.points.map(\.accessPoint.host) == ["one", "two"] && answer.lifetime == .seconds(300))
    }

    @Test("the payload is believed, not what stands beside it")
    func payload() throws {
        let signer = try AccessSigner()
        let signature = signer.sign(AccessSigner.payload(nonce: Self.nonce, points: ["signed"]))
        let question = try question()
        let answer = try AccessVerifier(AccessSigner.trust(signer)).read(
            AccessSigner.answer(AccessSigner.payload(nonce: "other", points: ["beside"]), signature: signature),
            to: question)
        #expect(answer.points.map(\.accessPoint.host) == ["signed"])
    }

    @Test("an answer without a signature, or with one that is none", arguments: TokenAlgorithm.allCases)
    func unsigned(algorithm: TokenAlgorithm) throws {
        let signer = try AccessSigner(algorithm)
        let keys = AccessSigner.trust(signer)
        let payload = AccessSigner.payload(nonce: Self.nonce)
        #expect(try fault(payload, keys) == .signatureInvalid)
        for text in ["", "x", "..", "a.b", "a.b.c.d", "%.%.%"] {
            #expect(try fault(AccessSigner.answer(payload, signature: text), keys) == .malformed, "\(text)")
        }
    }

    @Test("an answer that was changed, or whose signature was", arguments: TokenAlgorithm.allCases)
    func changed(algorithm: TokenAlgorithm) throws {
        let signer = try AccessSigner(algorithm)
        let keys = AccessSigner.trust(signer)
        let good = signer.sign(AccessSigner.payload(nonce: Self.nonce)).split(separator: ".").map(String.init)
        let other = signer.sign(AccessSigner.payload(nonce: Self.nonce, points: ["evil"])).split(separator: ".")
        let changed = [
            "\(good[0]).\(other[1]).\(good[2])", "\(good[0]).\(good[1]).\(other[2])", "\(good[0]).\(good[1]).",
            "\(good[0]).\(good[1]).\(good[2].dropLast(2))",
        ]
        for text in changed {
            let bytes = AccessSigner.answer(AccessSigner.payload(nonce: Self.nonce), signature: text)
            #expect(try fault(bytes, keys) == .signatureInvalid, "\(text)")
        }
    }

    @Test("a key that the app doesn't know, and one that only bears a known one's name")
    func strangers() throws {
        let (signer, stranger) = (try AccessSigner(), try AccessSigner())
        let keys = AccessSigner.trust(signer)
        #expect(try fault(stranger.answer(nonce: Self.nonce), keys) == .keyUnknown)
        let named = String(decoding: keys.json, as: UTF8.self).replacing(signer.key.keyID, with: stranger.key.keyID)
        #expect(
            try fault(stranger.answer(nonce: Self.nonce), JSONWebKeySet(json: Array(named.utf8))) == .signatureInvalid)
    }

    @Test(
        "an algorithm that isn't the key's: none, a shared secret, another key's, or an extension nobody knows",
        arguments: [
            #""alg":"none""#, #""alg":"HS256""#, #""alg":"RS256""#, #""alg":"ES256""#, #""alg":"EdDSA","crit":["b64"]"#,
        ])
    func algorithms(members: String) throws {
        let signer = try AccessSigner(.edDSA)
        let header = #"{\#(members),"kid":"\#(signer.key.keyID)","typ":"\#(AccessStatement.type)"}"#
        let payload = AccessSigner.payload(nonce: Self.nonce)
        for signature in ["c2ln", ""] {
            let bytes = AccessSigner.answer(payload, signature: Self.forged(header, payload, signature: signature))
            #expect(try fault(bytes, AccessSigner.trust(signer)) == .algorithmForbidden)
        }
    }

    @Test("another thing that the same key signed: a token is no answer", arguments: ["JWT", "longline-other+json"])
    func types(type: String) throws {
        let key = SigningKey.generate(.es256)
        let signer = try AccessSigner(key, type: type)
        #expect(try fault(signer.answer(nonce: Self.nonce), AccessSigner.trust(signer)) == .malformed)
    }

    @Test(
        "an answer for another tenant, user or device, or to another question",
        arguments: [
            (nonce, ["other", "ann", "phone"], AuthenticationError.Code.tenantForbidden),
            (nonce, ["acme", "bob", "phone"], .identityMismatch),
            (nonce, ["acme", "ann", "tablet"], .identityMismatch),
            ("nonce-of-an-earlier-one", ["acme", "ann", "phone"], .expired), ("", ["acme", "ann", "phone"], .expired),
            (nonce, ["acme", "", "phone"], .claimInvalid), (nonce, nil, .claimInvalid),
        ] as [(String, [String]?, AuthenticationError.Code)])
    func others(nonce: String, device: [String]?, code: AuthenticationError.Code) throws {
        let signer = try AccessSigner()
        #expect(try fault(signer.answer(nonce: nonce, of: device), AccessSigner.trust(signer)) == code)
    }

    @Test("what is no answer at all, and a signed one that makes no sense, are named as ever")
    func senseless() throws {
        let signer = try AccessSigner()
        let verifier = AccessVerifier(AccessSigner.trust(signer))
        let question = try question()
        func code(_ bytes: [UInt8]) -> ClientError.Code? {
            do throws(ClientError) { _ = try verifier.read(bytes, to: question) } catch { return error.code }
            return nil
        }
        #expect(code(Array("<html>".utf8)) == .controlAnswerInvalid && code([]) == .controlAnswerInvalid)
        #expect(code(Array(repeating: UInt8(ascii: " "), count: 65_537)) == .controlAnswerInvalid)
        #expect(code(signer.answer(nonce: Self.nonce, points: [])) == .controlAnswerInvalid)
        let next = AccessSigner.payload(nonce: Self.nonce, version: "2")
        #expect(code(AccessSigner.answer(next, signature: signer.sign(next))) == .controlVersionUnsupported)
    }

    @Test("while one key takes another's place both count, then the new one only")
    func rotation() throws {
        let (old, new) = (try AccessSigner(.edDSA), try AccessSigner(.es256))
        for signer in [old, new] {
            #expect(try fault(signer.answer(nonce: Self.nonce), AccessSigner.trust(old, new)) == nil)
        }
        #expect(try fault(old.answer(nonce: Self.nonce), AccessSigner.trust(new)) == .keyUnknown)
        #expect(try fault(new.answer(nonce: Self.nonce), AccessSigner.trust(new)) == nil)
    }

    @Test("a question is new each time, and needs a token that says whose it is")
    func questions() throws {
        var random = SeededRandom(seed: 1)
        let (first, second) = (
            try AccessVerifier.question(for: AccessSigner.token(), random: &random),
            try AccessVerifier.question(for: AccessSigner.token(), random: &random)
        )
        #expect(first.nonce != second.nonce && AccessStatement.isNonce(first.nonce) && first.nonce.utf8.count == 22)
        #expect(first.holder == (try question().holder))
        #expect(ControlEndpoint.path(nonce: "a-_9") == "/v1/access?nonce=a-_9")
        #expect(ControlEndpoint.path(nonce: nil) == "/v1/access")
        for token in ["", "opaque", "e30.e30.c2ln"] {
            let error = #expect(throws: ClientError.self) {
                try AccessVerifier.question(for: token, random: &random)
            }
            #expect(error?.code == .controlAnswerUntrusted)
        }
    }

    @Test("a set without a key is a mistake in the configuration")
    func empty() {
        var configuration = LonglineClient.Configuration(control: [ControlService(url: "https://h")]) { "" }
        configuration.controlKeys = JSONWebKeySet(keys: [])
        let error = #expect(throws: ClientError.self) { try LonglineClient(configuration: configuration) }
        #expect(error?.code == .invalidConfiguration)
    }
}

@Suite("What of a kept answer is still believed") struct KeptAccessTests {
    private let url = "https://rt.example"
    private let wall: UInt64 = 1_700_000_000_000

    private func book(
        _ bytes: [UInt8], _ keys: JSONWebKeySet, of owner: UserID? = nil, user: UserID? = nil
    ) -> AccessBook {
        AccessBook(
            StoredAccess(answer: bytes, control: url, user: owner, receivedAt: wall - 1_000), routes: [],
            controls: [url], verifier: AccessVerifier(keys), user: user, now: .now(), wall: wall)
    }

    @Test("one that a trusted key signed, whatever its question was, for its lifetime")
    func good() throws {
        let signer = try AccessSigner()
        let book = book(signer.answer(nonce: "long-gone"), AccessSigner.trust(signer))
        #expect(book.answer?.points.first?.accessPoint.host == "best" && book.distrust == nil)
        #expect(book.user == (try UserID("ann")) && book.isFresh(now: .now()))
        #expect(!book.isForAnother(than: AccessSigner.token()) && !book.isForAnother(than: "opaque"))
        for token in [
            AccessSigner.token("bob"), AccessSigner.token(device: "tablet"), AccessSigner.token(tenant: "other"),
        ] {
            #expect(book.isForAnother(than: token))
        }
    }

    @Test("none whose key was dropped, that was changed, or that was kept before the app had keys")
    func distrusted() throws {
        let (signer, next) = (try AccessSigner(), try AccessSigner())
        let payload = AccessSigner.payload(nonce: "long-gone")
        let cases = [
            (signer.answer(nonce: "long-gone"), AccessSigner.trust(next)),
            (signer.answer(nonce: "long-gone", of: nil), AccessSigner.trust(signer)),
            (AccessSigner.answer(payload, signature: nil), AccessSigner.trust(signer)),
            (
                AccessSigner.answer(payload, signature: signer.sign(payload).replacing(".eyJ", with: ".eyK")),
                AccessSigner.trust(signer)
            ),
        ]
        for (bytes, keys) in cases {
            let book = book(bytes, keys)
            #expect(book.answer == nil && book.user == nil && book.holder == nil)
            #expect(book.distrust?.code == .controlAnswerUntrusted)
        }
    }

    @Test("none for another user, whatever the row says")
    func foreign() throws {
        let signer = try AccessSigner()
        let (ann, bob) = (try UserID("ann"), try UserID("bob"))
        let bytes = signer.answer(nonce: "long-gone")
        #expect(book(bytes, AccessSigner.trust(signer), of: bob, user: bob).answer == nil)
        #expect(book(bytes, AccessSigner.trust(signer), of: nil, user: bob).answer == nil)
        #expect(book(bytes, AccessSigner.trust(signer), of: ann, user: ann).answer != nil)
    }
}
