import Crypto
import Foundation
import JWTKit
import LonglineServer
import LonglineStore
import LonglineWire
import Testing

@Suite struct TokenVerifierTests {
    let key: SigningKey
    let signer: TokenSigner
    let verifier: TokenVerifier

    init() async throws {
        key = SigningKey.generate(.edDSA)
        signer = await TokenSigner(key: key)
        verifier = await TokenVerifier(keys: [key.verificationKey], tenants: [try TenantID("acme")])
    }

    @Test(arguments: TokenAlgorithm.allCases)
    func acceptsWhatItsSignerSigned(algorithm: TokenAlgorithm) async throws {
        let key = SigningKey.generate(algorithm)
        let verifier = await TokenVerifier(keys: [key.verificationKey], tenants: nil)
        var claims = try goodClaims(scopes: [.receive, .join])
        claims.generations = RevocationGenerations(user: 4, device: 9)
        let token = try await TokenSigner(key: key).sign(claims)
        #expect(try await verifier.verify(token, now: now) == claims)
    }

    /// Before nbf, during the skew, inside, during the skew after exp, after it.
    @Test(arguments: [
        (-31_000, AuthenticationError.Code.notYetValid), (-30_000, nil), (0, nil), (3_599_999, nil), (3_629_999, nil),
        (3_630_000, .expired),
    ])
    func keepsToTheTimesOfATokenWithinTheSkew(after: Int, expected: AuthenticationError.Code?) async throws {
        let token = try await signer.sign(try goodClaims())
        let failure = try await authenticationFailure {
            _ = try await verifier.verify(token, now: UInt64(Int(now) + after))
        }
        #expect(failure == expected)
    }

    @Test func refusesBeforeNotBeforeEvenWhenIssued() async throws {
        var claims = try goodClaims()
        claims.notBefore = now + 60_000
        let token = try await signer.sign(claims)
        #expect(try await authenticationFailure { _ = try await verifier.verify(token, now: now) } == .notYetValid)
        #expect(try await verifier.verify(token, now: now + 30_000).notBefore == now + 60_000)
    }

    @Test func refusesAnotherTenantAndAnotherAudience() async throws {
        let other = try await signer.sign(try goodClaims(tenant: "rival"))
        #expect(try await authenticationFailure { _ = try await verifier.verify(other, now: now) } == .tenantForbidden)
        #expect(AuthenticationError(.tenantForbidden, "").closeCode == .forbidden)
        let elsewhere = try await TokenSigner(key: key, audience: "payments").sign(try goodClaims())
        #expect(
            try await authenticationFailure { _ = try await verifier.verify(elsewhere, now: now) } == .audienceForbidden
        )
    }

    @Test func refusesAChangedByteAnywhereInTheToken() async throws {
        let token = Array(try await signer.sign(try goodClaims()).utf8)
        for index in token.indices {
            var changed = token
            // Another character of the alphabet whose top bits differ, so that the decoded bytes differ too.
            changed[index] = changed[index] == UInt8(ascii: "A") ? UInt8(ascii: "w") : UInt8(ascii: "A")
            let text = String(decoding: changed, as: UTF8.self)
            let failure = try await authenticationFailure { _ = try await verifier.verify(text, now: now) }
            #expect(failure != nil, "byte \(index)")
        }
    }

    /// What is signed has one spelling (RFC 7515 section 2): no padding, no other alphabet, nothing behind the last byte.
    @Test(arguments: TokenAlgorithm.allCases)
    func refusesAnotherSpellingOfATokenThatWasSigned(algorithm: TokenAlgorithm) async throws {
        let key = SigningKey.generate(algorithm)
        let verifier = await TokenVerifier(keys: [key.verificationKey], tenants: nil)
        let token = try await TokenSigner(key: key).sign(try goodClaims())
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        let last = try #require(token.last.flatMap { alphabet.firstIndex(of: $0) })
        // 64 bytes of signature leave 4 bits of the last character unused.
        let others = (1...15).map { String(token.dropLast()) + String(alphabet[last ^ $0]) }
        let spellings = [token + "=", token + "=="] + others
        for text in spellings {
            let failure = try await authenticationFailure { _ = try await verifier.verify(text, now: now) }
            #expect(failure == .malformed, "\(text.suffix(4))")
        }
        #expect(try await verifier.verify(token, now: now).tenant == goodClaims().tenant)
    }

    @Test func refusesASignatureOfAnotherKeyUnderATrustedKeyID() async throws {
        let forger = JWTKeyCollection()
        await forger.add(eddsa: try EdDSA.PrivateKey(), kid: JWKIdentifier(string: key.keyID))
        let forged = try await forger.sign(ForgedPayload(), kid: JWKIdentifier(string: key.keyID))
        #expect(
            try await authenticationFailure { _ = try await verifier.verify(forged, now: now) } == .signatureInvalid)
    }

    @Test func refusesAKeyItDoesNotTrustAndATokenWithoutKey() async throws {
        let stranger = try await TokenSigner(key: SigningKey.generate(.edDSA)).sign(try goodClaims())
        #expect(try await authenticationFailure { _ = try await verifier.verify(stranger, now: now) } == .keyUnknown)
        let nameless = base64URL(#"{"alg":"EdDSA"}"#) + stranger.drop { $0 != "." }
        #expect(try await authenticationFailure { _ = try await verifier.verify(nameless, now: now) } == .keyUnknown)
    }

    /// The signature is dropped or made with the public key as a shared secret: the classic attacks on JWT.
    @Test(arguments: ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS256", "ES384", "eddsa"])
    func refusesEveryAlgorithmButTwo(algorithm: String) async throws {
        let good = try await signer.sign(try goodClaims())
        let payload = good.split(separator: ".")[1]
        let head = base64URL(#"{"alg":"\#(algorithm)","typ":"JWT","kid":"\#(key.keyID)"}"#) + "." + payload
        let secret = SymmetricKey(data: Data(key.verificationKey.pem.utf8))
        let mac = Data(HMAC<SHA256>.authenticationCode(for: Data(head.utf8), using: secret))
        let signature = mac.base64EncodedString().replacingOccurrences(of: "+", with: "-")
            .replacingOccurrences(of: "/", with: "_").replacingOccurrences(of: "=", with: "")
        for token in ["\(head).", "\(head).\(signature)"] {
            #expect(
                try await authenticationFailure { _ = try await verifier.verify(token, now: now) }
                    == .algorithmForbidden)
        }
    }

    @Test func refusesAKnownKeyUsedForTheOtherAlgorithm() async throws {
        let other = SigningKey.generate(.es256)
        let both = await TokenVerifier(keys: [key.verificationKey, other.verificationKey], tenants: nil)
        let token = try await TokenSigner(key: other).sign(try goodClaims())
        #expect(try await both.verify(token, now: now).user == (try UserID("alice")))
        let crossed = base64URL(#"{"alg":"ES256","kid":"\#(key.keyID)"}"#) + token.drop { $0 != "." }
        #expect(
            try await authenticationFailure { _ = try await both.verify(crossed, now: now) } == .algorithmForbidden)
    }

    @Test func refusesATokenThatDemandsAnExtension() async throws {
        let good = try await signer.sign(try goodClaims())
        let head = base64URL(#"{"alg":"EdDSA","kid":"\#(key.keyID)","crit":["b64"],"b64":false}"#)
        let token = head + good.drop { $0 != "." }
        #expect(
            try await authenticationFailure { _ = try await verifier.verify(token, now: now) } == .algorithmForbidden)
    }

    @Test func refusesAnOversizedTokenUnparsed() async throws {
        let token = String(repeating: "a", count: FrameLimits.maximumToken + 1)
        #expect(try await authenticationFailure { _ = try await verifier.verify(token, now: now) } == .tooLarge)
    }

    @Test(arguments: [
        "", ".", "..", "...", "a.b.c", "a.b.c.d", "\u{0}.\u{0}.\u{0}", "e30.e30.e30", "bnVsbA.bnVsbA.",
        "W10.W10.W10", "eyJhbGciOjF9.e30.e30",
    ])
    func refusesWhatIsNoToken(text: String) async throws {
        #expect(try await authenticationFailure { _ = try await verifier.verify(text, now: now) } == .malformed)
    }

    /// Properly signed, so that only the claims' own checks stand in the way.
    @Test(arguments: [
        (#"{}"#, AuthenticationError.Code.claimInvalid),
        (#"[]"#, .malformed),
        (#"{"sub":1}"#, .malformed),
        (#"{"exp":1e300,"iat":1}"#, .claimInvalid),
        (#"{"exp":-1,"iat":-2}"#, .claimInvalid),
        (#"{"login_epoch":-1}"#, .malformed),
        (#"{"login_epoch":1e30}"#, .malformed),
        (
            #"{"iat":1767225600,"exp":1767225600,"jti":"a","scope":"","sub":"a","tenant":"acme","device":"d"}"#,
            .claimInvalid
        ),
        (
            #"{"iat":1767225600,"exp":1767229200,"jti":"","scope":"","sub":"a","tenant":"acme","device":"d"}"#,
            .claimInvalid
        ),
        (#"{"iat":1767225600,"exp":1767229200,"jti":"a","sub":"a","tenant":"acme","device":"d"}"#, .claimInvalid),
        (
            #"{"iat":1767225600,"exp":1767229200,"jti":"a","scope":"","sub":"a/b","tenant":"acme","device":"d"}"#,
            .claimInvalid
        ),
        (#"{"iat":1767225600,"exp":1767229200,"jti":"a","scope":"","sub":"a","device":"d"}"#, .claimInvalid),
        (
            #"{"iat":1767225600,"exp":1767229200,"jti":"a","scope":"","sub":"a","tenant":"acme","device":""}"#,
            .claimInvalid
        ),
    ])
    func refusesClaimsOutsideTheirLimits(json: String, expected: AuthenticationError.Code) async throws {
        let raw = Curve25519.Signing.PrivateKey()
        let trusted = try VerificationKey(pem: EdDSA.PublicKey(backing: raw.publicKey).pemRepresentation)
        let verifier = await TokenVerifier(keys: [trusted], tenants: nil)
        let head = base64URL(#"{"alg":"EdDSA","kid":"\#(trusted.keyID)"}"#) + "." + base64URL(json)
        let signature = try raw.signature(for: Data(head.utf8)).base64EncodedString()
            .replacingOccurrences(of: "+", with: "-").replacingOccurrences(of: "/", with: "_")
            .replacingOccurrences(of: "=", with: "")
        let token = "\(head).\(signature)"
        #expect(try await authenticationFailure { _ = try await verifier.verify(token, now: now) } == expected)
    }

    @Test func ignoresScopesOfOtherServices() async throws {
        var scopes = TokenScopes.publish
        scopes.insert(.receive)
        let token = try await signer.sign(try goodClaims(scopes: scopes))
        #expect(try await verifier.verify(token, now: now).scopes == [.publish, .receive])
        #expect(try await verifier.verify(try await signer.sign(goodClaims(scopes: [])), now: now).scopes == [])
    }

    @Test func doesNotSignClaimsThatItWouldRefuse() async throws {
        var claims = try goodClaims()
        claims.expiry = claims.issuedAt
        #expect(try await authenticationFailure { _ = try await signer.sign(claims) } == .claimInvalid)
        claims = try goodClaims(tokenID: String(repeating: "x", count: 129))
        #expect(try await authenticationFailure { _ = try await signer.sign(claims) } == .claimInvalid)
    }

    private struct ForgedPayload: JWTPayload {
        var sub = "alice"
        var tenant = "acme"
        var device = "phone"
        var scope = "publish receive join"
        var jti = "forged"
        var iat = now / 1000
        var exp = now / 1000 + 3600
        func verify(using algorithm: some JWTAlgorithm) {}
    }
}
