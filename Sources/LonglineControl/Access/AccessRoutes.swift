import FoundationEssentials
import Hummingbird
import LonglineKeys
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Tells a client where to connect, and how.
struct AccessRoutes: Sendable {
    let server: LonglineServer
    let nodes: any NodeDirectory
    let keys: ControlKeys
    let settings: CurrentAccess
    let time: @Sendable () -> UInt64
    let signed = SignedAnswers()

    var routes: [ControlRoute] {
        [ControlRoute(.get, "/v1/access", on: .service) { request, _ in try await access(request) }]
    }

    private func access(_ request: Request) async throws -> Response {
        let device = try await holder(request)
        let nonce = try request.query("nonce")
        if let nonce, !AccessStatement.isNonce(nonce) {
            let length = AccessStatement.nonceLength
            throw Problem(
                .invalidRequest,
                "'nonce' has to be \(length.lowerBound) to \(length.upperBound) characters of A-Z a-z 0-9 - _")
        }
        let known: [NodeStatus]
        do { known = try await nodes.nodes() } catch { throw Problem(.unavailable, retryAfter: 1, cause: error) }
        let ranked = NodeRanking.rank(known, tenant: device.tenant, user: device.user)
        guard !ranked.isEmpty else { throw Problem(.noAccessPoint, retryAfter: 5) }
        let configuration = AccessConfiguration(
            nodes: ranked, policy: settings.value.policy, limits: server.currentLimits, tenant: device.tenant,
            question: nonce.map { AccessConfiguration.Question(nonce: $0, device: device) }, now: time())
        let signer = try await keys.current().access
        var response = Response.json(try signed.answer(configuration, signer))
        response.headers[.cacheControl] = "private, no-store"
        return response
    }

    /// Whose token it is. Whatever is wrong with it, the answer is the same.
    private func holder(_ request: Request) async throws(Problem) -> DeviceKey {
        do {
            return try await server.holder(ofToken: request.bearer ?? "").device
        } catch {
            switch error.code {
            case .overloaded: throw Problem(.overloaded, retryAfter: 1)
            case .storeUnavailable, .keyUnusable: throw Problem(.unavailable, retryAfter: 1, cause: error)
            default: throw Problem(.unauthorized)
            }
        }
    }
}

/// The answers of the last second or so, which many clients get alike, so that a crowd costs few signatures. One that is bound to a
/// question nobody else gets.
final class SignedAnswers: Sendable {
    private struct State {
        var answers: [AccessConfiguration: Data] = [:]
        var key = ""
    }

    private static let kept = 256
    private let state = Mutex(State())

    func answer(_ configuration: AccessConfiguration, _ signer: StatementSigner) throws -> Data {
        if configuration.question != nil { return try Self.make(configuration, signer) }
        let known = state.withLock { state in
            if state.key != signer.keyID {
                state.answers = [:]
                state.key = signer.keyID
            }
            return state.answers[configuration]
        }
        if let known { return known }
        let made = try Self.make(configuration, signer)
        state.withLock { state in
            if state.answers.count >= Self.kept { state.answers = [:] }
            if state.key == signer.keyID { state.answers[configuration] = made }
        }
        return made
    }

    /// The same object twice: {…} and its own bytes as a JWS.
    private static func make(_ configuration: AccessConfiguration, _ signer: StatementSigner) throws -> Data {
        let payload = try ControlJSON.encode(configuration)
        var answer = payload.dropLast()
        answer.append(contentsOf: #","signature":"\#(try signer.sign(payload))"}"#.utf8)
        return Data(answer)
    }
}
