import Foundation
import Logging
import LonglineKeys
import LonglineWire
import Synchronization

@testable import LonglineClient

/// A control layer's key, and what it signs: as the real one, and as a bad one would.
struct AccessSigner: Sendable {
    let key: SigningKey
    private let signer: StatementSigner

    init(_ algorithm: TokenAlgorithm = .edDSA, type: String = AccessStatement.type) throws {
        try self.init(SigningKey.generate(algorithm), type: type)
    }

    init(_ key: SigningKey, type: String = AccessStatement.type) throws {
        self.key = key
        signer = try StatementSigner(key: key, type: type)
    }

    /// What is signed. `device`: a tenant, a user and a device; nil: the question isn't in it.
    static func payload(
        nonce: String?, of device: [String]? = ["acme", "ann", "phone"], points: [String] = ["best"],
        version: String = "1"
    ) -> [UInt8] {
        var more = ""
        if let nonce, let device {
            let names = #""tenant":"\#(device[0])","user":"\#(device[1])","device":"\#(device[2])""#
            more = #","question":{"nonce":"\#(nonce)",\#(names)}"#
        }
        let points = points.map { #"{"host":"\#($0)","port":1,"transports":["quic"]}"# }.joined(separator: ",")
        return AccessAnswerTests.json(version: version, points: points, more: more)
    }

    func sign(_ payload: [UInt8]) -> String { (try? signer.sign(Data(payload))) ?? "" }

    /// The object, and what makes it believable. What is signed may be another than what stands beside it.
    static func answer(_ payload: [UInt8], signature: String?) -> [UInt8] {
        payload.dropLast() + Array((signature.map { #","signature":"\#($0)"}"# } ?? "}").utf8)
    }

    func answer(
        nonce: String?, of device: [String]? = ["acme", "ann", "phone"], points: [String] = ["best"]
    ) -> [UInt8] {
        let payload = Self.payload(nonce: nonce, of: device, points: points)
        return Self.answer(payload, signature: sign(payload))
    }

    /// Answers every question as it is asked.
    func points(_ points: [String], of device: [String]? = ["acme", "ann", "phone"]) -> FakeControl.Answer {
        .made { nonce in ControlReply(status: 200, body: answer(nonce: nonce, of: device, points: points)) }
    }

    /// A token that says whose it is.
    static func token(_ user: String = "ann", device: String = "phone", tenant: String = "acme") -> String {
        let claims = #"{"sub":"\#(user)","device":"\#(device)","tenant":"\#(tenant)"}"#
        return "e30.\(Base64URL.encode(Data(claims.utf8))).c2VjcmV0"
    }

    static func trust(_ signers: AccessSigner...) -> JSONWebKeySet {
        JSONWebKeySet(keys: signers.map(\.key.verificationKey))
    }
}
