import ArgumentParser
import LonglineServer
import LonglineWire

/// What users and tenants of a server may take.
struct LimitOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How many messages a second each user may publish, on all devices together; by default as many as the store takes.",
            valueName: "messages"))
    var publishRate: Double?

    @Option(
        help: ArgumentHelp(
            "How many of them at once, after a quiet time; by default those of 10 seconds.", valueName: "messages"))
    var publishBurst: Int?

    @Option(
        help: ArgumentHelp(
            "How many messages a second each tenant's users may publish together; by default as many as the store takes.",
            valueName: "messages"))
    var tenantPublishRate: Double?

    @Option(
        help: ArgumentHelp(
            "The largest message in bytes; those over \(FrameLimits.maximumPayload) travel in parts.",
            valueName: "bytes"))
    var maximumPayload: Int = ServerLimits().maximumPayload

    @Flag(
        inversion: .prefixedNo,
        help: "Compress what clients missed, for those that ask for it; each sender's messages apart from all others'.")
    var compression = ServerLimits().compressesCatchUps

    @Option(help: ArgumentHelp("Devices with a session at one time, all tenants together.", valueName: "sessions"))
    var maximumSessions: Int = ServerLimits().maximumSessions

    @Option(help: ArgumentHelp("Of these, those of one tenant.", valueName: "sessions"))
    var maximumSessionsPerTenant: Int = ServerLimits().maximumSessionsPerTenant

    @Option(
        help: ArgumentHelp(
            "Of these, those of one user; above \(ServerLimits().maximumSessionsPerUser), a user may connect more often, too.",
            valueName: "sessions"))
    var maximumSessionsPerUser: Int = ServerLimits().maximumSessionsPerUser

    @Option(
        name: .customLong("tenant-limit"),
        help: ArgumentHelp(
            """
            What a tenant has of its own, as TENANT=NAME:VALUE,…; names are payload (bytes), sessions, user-rate and rate \
            (messages a second of each user, and of all together). Give it several times for several tenants.
            """, valueName: "limits"))
    var tenantLimits: [String] = []

    func validate() throws {
        if let publishRate, !(publishRate > 0 && publishRate <= 1e9) {
            throw ValidationError("--publish-rate has to be above 0.")
        }
        if let tenantPublishRate, !(tenantPublishRate > 0 && tenantPublishRate <= 1e9) {
            throw ValidationError("--tenant-publish-rate has to be above 0.")
        }
        if let publishBurst {
            guard publishBurst >= 1 else { throw ValidationError("--publish-burst has to be 1 or more.") }
            guard publishRate != nil else { throw ValidationError("--publish-burst goes with --publish-rate.") }
        }
        guard (1...FrameLimits.maximumWholePayload).contains(maximumPayload) else {
            throw ValidationError("--maximum-payload has to be 1 to \(FrameLimits.maximumWholePayload).")
        }
        let sessions = [
            ("", maximumSessions), ("-per-tenant", maximumSessionsPerTenant), ("-per-user", maximumSessionsPerUser),
        ]
        for (name, limit) in sessions where !(1...100_000_000).contains(limit) {
            throw ValidationError("--maximum-sessions\(name) has to be 1 to 100000000.")
        }
        _ = try limits()
    }

    func limits() throws -> ServerLimits {
        var limits = ServerLimits()
        limits.maximumPayload = maximumPayload
        limits.compressesCatchUps = compression
        limits.maximumSessions = maximumSessions
        // All devices of a user may come back at once, as after a restart.
        let crowd = Double(maximumSessionsPerUser) / Double(limits.maximumSessionsPerUser)
        if crowd > 1 {
            limits.connectBurst = max(limits.connectBurst, 2 * maximumSessionsPerUser)
            limits.connectsPerSecond *= crowd
        }
        limits.maximumConnections = max(limits.maximumConnections, maximumSessions)
        limits.maximumSessionsPerTenant = maximumSessionsPerTenant
        limits.maximumSessionsPerUser = maximumSessionsPerUser
        limits.publishRatePerUser = publishRate.map { Self.rate($0, burst: publishBurst) }
        limits.publishRatePerTenant = tenantPublishRate.map { Self.rate($0) }
        for text in tenantLimits {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2 else { throw ValidationError("--tenant-limit: '\(text)' is not TENANT=NAME:VALUE.") }
            let tenant = try Name.parse("--tenant-limit", parts[0], TenantID.init)
            guard limits.tenants[tenant] == nil else { throw ValidationError("--tenant-limit: \(tenant) comes twice.") }
            limits.tenants[tenant] = try own(parts[1])
        }
        return limits
    }

    private static func rate(_ perSecond: Double, burst: Int? = nil) -> PublishRate {
        PublishRate(messagesPerSecond: perSecond, messageBurst: burst ?? max(1, Int(perSecond * 10)))
    }

    private func own(_ text: String) throws -> TenantLimits {
        var limits = TenantLimits()
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pair = item.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let value = pair.count == 2 ? pair[1] : ""
            switch pair[0] {
            case "payload": limits.maximumPayload = try Self.number(value, 1...maximumPayload, item)
            case "sessions": limits.maximumSessions = try Self.number(value, 1...100_000_000, item)
            case "user-rate": limits.publishRatePerUser = Self.rate(try Self.number(value, 1...1_000_000_000, item))
            case "rate": limits.publishRate = Self.rate(try Self.number(value, 1...1_000_000_000, item))
            default: throw ValidationError("--tenant-limit: '\(item)' is no payload, sessions, user-rate or rate.")
            }
        }
        return limits
    }

    private static func number(_ text: String, _ range: ClosedRange<Int>, _ item: Substring) throws -> Int {
        guard let value = Int(text), range.contains(value) else {
            throw ValidationError(
                "--tenant-limit: '\(item)' needs a value from \(range.lowerBound) to \(range.upperBound).")
        }
        return value
    }

    private static func number(_ text: String, _ range: ClosedRange<Double>, _ item: Substring) throws -> Double {
        guard let value = Double(text), value > 0, value <= range.upperBound else {
            throw ValidationError("--tenant-limit: '\(item)' needs a value above 0.")
        }
        return value
    }
}
