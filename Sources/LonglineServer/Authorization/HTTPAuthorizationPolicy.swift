import FoundationEssentials
import LonglineHTTP
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix

/// Asks the app's backend over HTTP/1.1: a POST for each question, with connections kept for the next.
///
/// ```
///   POST /path HTTP/1.1
///   {"action":"publish","channel":"room/hall","device":"phone","tenant":"acme","user":"alice"}
///   {"action":"manage","change":"add","channel":"room/hall","device":"phone","member":"bob","tenant":"acme","user":"alice"}
///
///   200 {"allow":true,"ttl":30}
///   200 {"allow":false,"code":5,"ttl":30}      ; code is a refusal code, 5 (forbidden) when it is left out
/// ```
/// `ttl` is in seconds, 0 when it is left out. Any other status or body is a failure. A question may be asked twice, when the
/// backend closes a kept connection meanwhile. `https` verifies the backend's certificate; `http` is for one on this machine or a
/// private network.
public final class HTTPAuthorizationPolicy: AuthorizationPolicy {
    private struct Question: Encodable {
        var action: String
        var tenant: String
        var user: String
        var device: String
        var channel: String
        var change: String?
        var member: String?
    }
    private struct Answer: Decodable {
        var allow: Bool
        var code: UInt32?
        var ttl: Double?
    }

    private let client: HTTPClient

    /// A policy that asks at this address.
    /// - Parameters:
    ///   - url: `https://host[:port][/path]`, or `http://` on the same machine or a private network.
    ///   - headers: sent with each question, a secret of the two sides for example.
    ///   - trust: whom to believe to be the backend, where the address says `https`.
    /// - Throws: ``ServerError/Code/invalidConfiguration`` for another form of address, or a certificate that can't be read.
    public convenience init(
        url: String, headers: [(name: String, value: String)] = [], trust: HTTPTrust = .systemRoots
    ) throws(ServerError) {
        try self.init(url: url, headers: headers, trust: trust, group: MultiThreadedEventLoopGroup.singleton)
    }

    init(
        url: String, headers: [(name: String, value: String)] = [], trust: HTTPTrust = .systemRoots,
        group: any EventLoopGroup
    ) throws(ServerError) {
        client = try HTTPClient(
            endpoint: try HTTPEndpoint(url), headers: HTTPHeaders(headers.map { ($0.name, $0.value) }), trust: trust,
            group: group)
    }

    private static func name(_ action: RoomAction) -> String {
        switch action {
        case .add: "add"
        case .remove: "remove"
        case .setRole(.owner, _): "make-owner"
        case .setRole(.member, _): "make-member"
        case .setJoining: "set-joining"
        case .setPublishing: "set-publishing"
        case .delete: "delete"
        }
    }

    public func decide(_ question: AuthorizationQuestion) async throws -> AuthorizationDecision {
        let device = question.device
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let body = try encoder.encode(
            Question(
                action: "\(question.action)", tenant: device.tenant.description, user: device.user.description,
                device: device.device.description, channel: question.channel.description,
                change: question.change.map(Self.name), member: question.change?.user?.description))
        let response = try await client.post(ByteBuffer(bytes: body))
        guard response.status == 200 else { throw HTTPFailure(reason: "status \(response.status)") }
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(response.body.readableBytesView)) else {
            throw HTTPFailure(reason: "an answer that is not {\"allow\":...}")
        }
        let timeToLive = Duration.milliseconds(Int64(min(max(answer.ttl ?? 0, 0), 86_400) * 1_000))
        if answer.allow { return .allow(for: timeToLive) }
        let code = answer.code ?? 0
        return .deny(code == 0 ? .forbidden : RefusalCode(rawValue: code), for: timeToLive)
    }
}
