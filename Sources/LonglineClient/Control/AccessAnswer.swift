import Foundation
import LonglineKeys
import LonglineSession
import LonglineWire
import NIOCore

/// What the control layer says: where to connect and how, taken out of its JSON and brought within bounds.
struct AccessAnswer: Hashable, Sendable {
    struct Point: Hashable, Sendable {
        var accessPoint: AccessPoint
        /// Whether a connection can move to another path: not where a load balancer on the way goes by addresses.
        var isMigrationSafe: Bool
    }

    struct Heartbeat: Hashable, Sendable {
        var initial: TimeAmount
        var answerTimeout: TimeAmount
    }

    /// More access points are left out.
    static let maximumPoints = AccessStatement.maximumPoints
    /// No answer is used for longer without another, whatever it says.
    static let longestLifetime = Duration.seconds(7 * 86_400)

    /// Those with QUIC, best first; at least one, each once.
    var points: [Point]
    /// Access points with QUIC whose host or port is none.
    var leftOut = 0
    var lifetime: Duration
    var heartbeat: Heartbeat?
    var backOff: BackOffPolicy?

    /// - Throws: ``ClientError/Code/controlAnswerInvalid``, ``ClientError/Code/controlVersionUnsupported``.
    init(parsing bytes: [UInt8]) throws(ClientError) {
        guard bytes.count <= StoredAccess.maximumAnswer else { throw Self.tooLarge }
        let decoder = JSONDecoder()
        let data = Data(bytes)
        // The version first: of another nothing else is known.
        let version: UInt64
        do { version = try decoder.decode(Version.self, from: data).version } catch {
            throw Self.invalid("can't be read", error)
        }
        guard version == 1 else {
            throw ClientError(
                .controlVersionUnsupported, message: "the control layer's answer has version \(version), not 1",
                advice: "upgrade the app")
        }
        let body: Body
        do { body = try decoder.decode(Body.self, from: data) } catch { throw Self.invalid("can't be read", error) }
        points = []
        for point in body.accessPoints where point.transports.contains("quic") {
            // The others are of use all the same.
            guard AccessHost.isValid(point.host), (1...65_535).contains(point.port) else {
                leftOut += 1
                continue
            }
            let accessPoint = AccessPoint(host: point.host, port: point.port)
            guard points.count < Self.maximumPoints, !points.contains(where: { $0.accessPoint == accessPoint }) else {
                continue
            }
            points.append(Point(accessPoint: accessPoint, isMigrationSafe: point.migrationSafe ?? true))
        }
        guard !points.isEmpty else {
            throw Self.invalid(
                leftOut == 0 ? "has no access point with QUIC" : "has access points without a host or a port alone")
        }
        let (life, isOver) = body.expiresAt.subtractingReportingOverflow(body.issuedAt)
        guard !isOver else { throw Self.invalid("expired before it was issued") }
        lifetime = min(Self.milliseconds(life), Self.longestLifetime)
        heartbeat = body.heartbeat?.value
        backOff = body.backOff?.value
    }

    static func invalid(_ reason: String, _ cause: (any Error)? = nil) -> ClientError {
        ClientError(
            .controlAnswerInvalid, message: "the control layer's answer \(reason)", cause: cause,
            advice: "check what answers at its address")
    }

    static var tooLarge: ClientError { invalid("is over \(StoredAccess.maximumAnswer) bytes") }

    fileprivate static func milliseconds(_ count: UInt64) -> Duration { .milliseconds(Int64(min(count, 1 << 40))) }
}

// MARK: As it is written; members that aren't known are left alone.

private struct Version: Decodable {
    var version: UInt64
}

private struct Body: Decodable {
    struct Point: Decodable {
        var host: String
        var port: Int
        var transports: [String]
        var migrationSafe: Bool?

        enum CodingKeys: String, CodingKey {
            case host, port, transports
            case migrationSafe = "migration_safe"
        }
    }

    /// Milliseconds.
    struct Heartbeat: Decodable {
        var initial: UInt64
        var answerTimeout: UInt64
        var minimum: UInt64?
        var idleTimeout: UInt64?

        enum CodingKeys: String, CodingKey {
            case initial, minimum
            case answerTimeout = "answer_timeout"
            case idleTimeout = "idle_timeout"
        }

        /// Not shorter than the server's minimum, and well within its idle timeout.
        var value: AccessAnswer.Heartbeat {
            let day: UInt64 = 86_400_000
            let most = max(1_000, min(idleTimeout ?? day, day) / 3 * 2)
            let least = min(most, max(1_000, minimum ?? 0))
            return AccessAnswer.Heartbeat(
                initial: .milliseconds(Int64(min(max(initial, least), most))),
                answerTimeout: .milliseconds(Int64(min(max(answerTimeout, 500), 60_000))))
        }
    }

    /// Milliseconds.
    struct BackOff: Decodable {
        var base: UInt64
        var maximum: UInt64
        var resetAfter: UInt64

        enum CodingKeys: String, CodingKey {
            case base, maximum
            case resetAfter = "reset_after"
        }

        /// A service can slow its clients, not stop them: an hour is the most.
        var value: BackOffPolicy {
            let hour: UInt64 = 3_600_000
            let first = min(max(base, 1), hour)
            return BackOffPolicy(
                base: AccessAnswer.milliseconds(first),
                maximum: AccessAnswer.milliseconds(min(max(maximum, first), hour)),
                resetAfter: AccessAnswer.milliseconds(min(resetAfter, hour)))
        }
    }

    var issuedAt: UInt64
    var expiresAt: UInt64
    var accessPoints: [Point]
    var heartbeat: Heartbeat?
    var backOff: BackOff?

    enum CodingKeys: String, CodingKey {
        case heartbeat
        case issuedAt = "issued_at"
        case expiresAt = "expires_at"
        case accessPoints = "access_points"
        case backOff = "back_off"
    }
}
