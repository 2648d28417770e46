import Foundation
import LonglineKeys
import LonglineWire

/// Believes an answer of the control layer only if a key that the app trusts signed it, for this device and in answer to its question.
///
/// ```
///   question: nonce ---> control layer ---> {"access_points": ..., "signature": "header.payload.signature"}
///                                                                               |
///   believed: <--- the payload, if the signature is a trusted key's, and `question` is this one
/// ```
/// No clock decides: the nonce makes an answer as young as its question, and a device whose clock is wrong connects all the same.
struct AccessVerifier: Sendable {
    /// What one question to the control layer has to be answered to.
    struct Question: Hashable, Sendable {
        var nonce: String
        var holder: TokenHolder
    }

    /// An answer, and for whom the service said it.
    struct Verified: Hashable, Sendable {
        var answer: AccessAnswer
        var question: Question
    }

    private let statements: StatementVerifier

    init(_ keys: JSONWebKeySet) {
        statements = StatementVerifier(keys: keys.keys, type: AccessStatement.type)
    }

    /// A question of the token's holder.
    /// - Throws: ``ClientError/Code/controlAnswerUntrusted`` when the token doesn't tell whose it is: no answer could be believed.
    static func question(
        for token: String, random: inout some RandomNumberGenerator
    ) throws(ClientError) -> Question {
        guard let holder = TokenHolder.read(from: token) else {
            throw refusal(
                "could not be verified: the token does not say whose it is",
                AuthenticationError(.claimInvalid, "not a JWT with tenant, sub and device"),
                advice: "have the token provider give the service's own tokens")
        }
        let bytes = Data((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) })
        return Question(nonce: Base64URL.encode(bytes), holder: holder)
    }

    /// What of an answer is signed, if it answers this question.
    /// - Throws: ``ClientError/Code/controlAnswerUntrusted``; for what is signed and makes no sense, as ``AccessAnswer``.
    func read(_ bytes: [UInt8], to question: Question) throws(ClientError) -> AccessAnswer {
        let verified = try read(bytes)
        let (asked, answered) = (question.holder, verified.question.holder)
        guard answered.tenant == asked.tenant else {
            throw Self.refusal(
                "is for another tenant", AuthenticationError(.tenantForbidden, "the tenant is not the token's"))
        }
        guard answered == asked else {
            throw Self.refusal(
                "is for somebody else", AuthenticationError(.identityMismatch, "user or device is not the token's"))
        }
        guard verified.question.nonce == question.nonce else {
            throw Self.refusal(
                "is an old one", AuthenticationError(.expired, "it was given to another question"))
        }
        return verified.answer
    }

    /// What of an answer is signed, and to whose question. What was kept is read again like this: its question was compared when it
    /// came, and how old it may be is not the signature's matter.
    /// - Throws: as ``read(_:to:)``.
    func read(_ bytes: [UInt8]) throws(ClientError) -> Verified {
        guard bytes.count <= StoredAccess.maximumAnswer else { throw AccessAnswer.tooLarge }
        let envelope: Envelope
        do { envelope = try JSONDecoder().decode(Envelope.self, from: Data(bytes)) } catch {
            throw AccessAnswer.invalid("can't be read", error)
        }
        guard let signature = envelope.signature else {
            throw Self.refusal("is not signed", AuthenticationError(.signatureInvalid, "there is no signature"))
        }
        let payload: Data
        do throws(AuthenticationError) { payload = try statements.verify(signature) } catch {
            throw Self.refusal("is not signed by a key that the app trusts", error)
        }
        guard let question = (try? JSONDecoder().decode(Payload.self, from: payload))?.question?.value else {
            throw Self.refusal(
                "does not say to whom it was given",
                AuthenticationError(.claimInvalid, "there is no question in it"),
                advice: "upgrade the server: its control layer knows no nonce")
        }
        return Verified(answer: try AccessAnswer(parsing: Array(payload)), question: question)
    }

    /// `cause` holds neither token nor key nor what the answer says.
    private static func refusal(
        _ reason: String, _ cause: AuthenticationError,
        advice: String = "if it is the service's own: give the app the keys that /.well-known/jwks.json has"
    ) -> ClientError {
        ClientError(
            .controlAnswerUntrusted, message: "the control layer's answer \(reason)", cause: cause, advice: advice)
    }
}

// MARK: As it is written.

private struct Envelope: Decodable {
    var signature: String?
}

private struct Payload: Decodable {
    struct Question: Decodable {
        var nonce: String
        var tenant: String
        var user: String
        var device: String

        var value: AccessVerifier.Question? {
            guard let tenant = try? TenantID(tenant), let user = try? UserID(user), let device = try? DeviceID(device)
            else { return nil }
            return AccessVerifier.Question(
                nonce: nonce, holder: TokenHolder(tenant: tenant, user: user, device: device))
        }
    }

    var question: Question?
}
