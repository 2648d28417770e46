import Logging
import LonglineSettings
import LonglineWire

/// The settings of `longline server`. What the option says about itself (meaning, default) is asked of the option; here is
/// what its help can't tell: how it is grouped, which values it takes, and whether SIGHUP applies it.
enum ServerSettings {
    /// What is added to an option.
    struct Trait {
        let key: SettingKey
        let kind: SettingKind
        let unit: String?
        let isReloadable: Bool

        init(_ key: String, _ kind: SettingKind, _ unit: String? = nil, reload: Bool = false) {
            self.key = SettingKey(key)
            self.kind = kind
            self.unit = unit
            self.isReloadable = reload
        }
    }

    private static let count = SettingKind.integer(1...100_000_000)
    private static let anyCount = SettingKind.integer(1...Int.max)
    private static let rate = SettingKind.number(above: 0, upTo: 1e9, includesLower: false)

    private static func fraction(_ range: ClosedRange<Double>) -> SettingKind {
        .number(above: range.lowerBound, upTo: range.upperBound, includesLower: true)
    }

    /// In the order in which they are shown.
    static let traits: [Trait] = [
        Trait("host", .list(.text)),
        Trait("port", .integer(0...65535)),
        Trait("data", .folder),
        Trait("tenant", .list(.text)),
        Trait("certificate", .file, reload: true),
        Trait("key", .file, reload: true),
        Trait("token-key", .list(.file), reload: true),
        Trait("jwks", .list(.text)),
        Trait("jwks-interval", .integer(1...86_400), "seconds"),
        Trait("jwks-ca", .file),
        Trait("clock-skew", .integer(0...TokenKeyOptions.largestClockSkew), "seconds"),
        Trait("accept-credentials-from-before-restore", .flag),
        Trait("authorize.url", .text),
        Trait("authorize.ca", .file),
        Trait("authorize.token-file", .file),
        Trait("authorize.on-failure", .choice(["refuse-for-now", "deny", "allow"])),
        Trait("authorize.deadline", .number(above: 0.001, upTo: 60, includesLower: true), "seconds"),
        Trait("authorize.maximum-ttl", .number(above: 0, upTo: 86_400, includesLower: true), "seconds"),
        Trait("authorize.cache", .integer(0...100_000_000), "answers"),
        Trait("authorize.in-flight", .integer(1...100_000), "questions"),
        Trait("webhooks", .file),
        Trait("device-policy", .list(.text)),
        Trait("event-loops", .integer(1...256)),
        Trait("busy-poll", .integer(0...ServerCommand.longestBusyPoll), "microseconds"),
        Trait("store.limit", .integer(1...ServerCommand.largestStore), "MiB"),
        Trait("publish.rate", rate, "messages a second", reload: true),
        Trait("publish.burst", anyCount, "messages", reload: true),
        Trait("tenant-publish-rate", rate, "messages a second", reload: true),
        Trait("maximum-payload", .integer(1...FrameLimits.maximumWholePayload), "bytes", reload: true),
        Trait("compression", .flag),
        Trait("maximum-sessions", count, "sessions", reload: true),
        Trait("maximum-sessions-per-tenant", count, "sessions", reload: true),
        Trait("maximum-sessions-per-user", count, "sessions", reload: true),
        Trait("tenant-limit", .list(.text), reload: true),
        Trait("inbox.max-age", .time),
        Trait("inbox.max-entries", anyCount, "entries"),
        Trait("inbox.max-bytes", .size),
        Trait("room.max-age", .time),
        Trait("room.max-entries", anyCount, "entries"),
        Trait("room.max-bytes", .size),
        Trait("broadcast.max-age", .time),
        Trait("broadcast.max-entries", anyCount, "entries"),
        Trait("broadcast.max-bytes", .size),
        Trait("retention.interval", .time),
        Trait("control", .list(.text)),
        Trait("admin", .list(.text)),
        Trait("http3", .flag),
        Trait("access-point", .list(.text), reload: true),
        Trait("migration-unsafe", .flag, reload: true),
        Trait("access.lifetime", .time, reload: true),
        Trait("access.heartbeat", .time, reload: true),
        Trait("access.heartbeat-answer", fraction(AccessOptions.answerTimes), "seconds", reload: true),
        Trait("access.back-off-base", fraction(AccessOptions.waits), "seconds", reload: true),
        Trait("access.back-off-maximum", fraction(AccessOptions.waits), "seconds", reload: true),
        Trait("access.back-off-reset", fraction(AccessOptions.resets), "seconds", reload: true),
        Trait("capacity.connections", count, "connections", reload: true),
        Trait("capacity.handshakes", fraction(AccessOptions.handshakes), "handshakes a second", reload: true),
        Trait("capacity.loop-delay", fraction(AccessOptions.delays), "seconds", reload: true),
        Trait("capacity.memory", .size, reload: true),
        Trait("control-limit.connections", .integer(ControlLimitOptions.connections), "connections"),
        Trait("control-limit.request-timeout", .time),
        Trait("control-limit.body-timeout", .time),
        Trait("control-limit.idle-timeout", .time),
        Trait("control-limit.token-lifetime", .time),
        Trait("log.level", .choice(Logger.Level.allCases.map(\.rawValue)), reload: true),
        Trait("log.format", .choice(LogOptions.Format.allCases.map(\.rawValue))),
    ]

    /// Set by the environment only: what a file or a command line says can be read by too many.
    private static let secrets = [
        Setting(
            key: SettingKey("authorize.token"), kind: .text,
            meaning: "The bearer token that questions to authorize.url carry. In the environment only.",
            isSecret: true, file: SettingKey("authorize.token-file"))
    ]

    static let catalogue: SettingCatalogue = {
        let options = Dictionary(ServerOptionHelp.all.map { ($0.name, $0) }) { first, _ in first }
        let settings = traits.map { trait in
            let option = options[trait.key.optionName]
            return Setting(
                key: trait.key, aliases: option?.aliases ?? [], negation: option?.negation, kind: trait.kind,
                unit: trait.unit,
                meaning: option?.abstract ?? "",
                standard: option?.standard,
                isReloadable: trait.isReloadable)
        }
        return SettingCatalogue(settings + secrets)
    }()

    /// Says how packets are protected, of clients as of servers.
    static let packetProtection = "LONGLINE_PACKET_PROTECTION"

    /// Variables that begin like settings and are none.
    static let otherVariables: Set<String> = ["LONGLINE_CONFIG", "LONGLINE_TOKEN", packetProtection]
}
