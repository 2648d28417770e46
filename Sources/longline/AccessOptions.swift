import ArgumentParser
import LonglineControl
import LonglineWire

/// What the control layer tells clients, and when this server is full.
struct AccessOptions: ParsableArguments {
    @Option(help: "Where clients reach this server, host:port, best first; by default where it listens.")
    var accessPoint: [String] = []

    @Flag(help: "Tell clients that a connection can't move to another network here: a load balancer goes by addresses.")
    var migrationUnsafe = false

    @Option(
        help: ArgumentHelp(
            "How long a client may use an answer to where it connects without asking again, up to 7d; by default 5m.",
            valueName: "time"))
    var accessLifetime: String?

    @Option(
        help: ArgumentHelp(
            "The first wait between two heartbeats, from which a client learns, 5s to 6m; by default 30s.",
            valueName: "time"))
    var accessHeartbeat: String?

    @Option(help: ArgumentHelp("How long an answer to a heartbeat may take; by default 5.", valueName: "seconds"))
    var accessHeartbeatAnswer: Double?

    @Option(
        help: ArgumentHelp(
            "The upper bound of a client's first wait before it connects again, which doubles with each try; by default 0.25.",
            valueName: "seconds"))
    var accessBackOffBase: Double?

    @Option(help: ArgumentHelp("The upper bound of every such wait; by default 60.", valueName: "seconds"))
    var accessBackOffMaximum: Double?

    @Option(
        help: ArgumentHelp(
            "A session that was up for so long counts as a success: the waits begin anew; by default 5.",
            valueName: "seconds"))
    var accessBackOffReset: Double?

    @Option(
        help: ArgumentHelp(
            "With so many connections this server is full; by default, and at most, as many as have a session's room.",
            valueName: "connections"))
    var capacityConnections: Int?

    @Option(
        help: ArgumentHelp("With so many handshakes a second it is full; by default 2000.", valueName: "handshakes"))
    var capacityHandshakes: Double?

    @Option(
        help: ArgumentHelp(
            "It is full when its event loops let work wait for so long, most of the time; by default 0.25.",
            valueName: "seconds"))
    var capacityLoopDelay: Double?

    @Option(
        help: ArgumentHelp(
            "It is full when the process has so much memory: a number, or one with K, M or G (of 1024).",
            valueName: "bytes"))
    var capacityMemory: String?

    static let answerTimes = 0.1...60.0
    static let waits = 0.01...3_600.0
    static let resets = 0.0...3_600.0
    static let handshakes = 1.0...1_000_000.0
    static let delays = 0.001...60.0

    func validate() throws { _ = try settings() }

    /// An option that is there although nothing would come of it without a control layer.
    var first: String? {
        let given: [(String, Bool)] = [
            ("--access-point", !accessPoint.isEmpty), ("--migration-unsafe", migrationUnsafe),
            ("--access-lifetime", accessLifetime != nil), ("--access-heartbeat", accessHeartbeat != nil),
            ("--access-heartbeat-answer", accessHeartbeatAnswer != nil),
            ("--access-back-off-base", accessBackOffBase != nil),
            ("--access-back-off-maximum", accessBackOffMaximum != nil),
            ("--access-back-off-reset", accessBackOffReset != nil),
            ("--capacity-connections", capacityConnections != nil),
            ("--capacity-handshakes", capacityHandshakes != nil), ("--capacity-loop-delay", capacityLoopDelay != nil),
            ("--capacity-memory", capacityMemory != nil),
        ]
        return given.first { $0.1 }?.0
    }

    func settings() throws -> AccessSettings {
        var settings = AccessSettings()
        settings.accessPoints = try accessPoint.map { try place($0) }
        settings.policy = try policy()
        if let capacityConnections {
            guard (1...100_000_000).contains(capacityConnections) else {
                throw ValidationError("--capacity-connections has to be 1 to 100000000.")
            }
            settings.capacity.connections = capacityConnections
        }
        if let handshakes = try Self.number(capacityHandshakes, Self.handshakes, "--capacity-handshakes") {
            settings.capacity.handshakesPerSecond = handshakes
        }
        if let delay = try Self.number(capacityLoopDelay, Self.delays, "--capacity-loop-delay") {
            settings.capacity.loopDelay = .seconds(delay)
        }
        if let capacityMemory {
            settings.capacity.memory = UInt64(try CommandLineSize.bytes(capacityMemory, "--capacity-memory"))
        }
        return settings
    }

    private func policy() throws -> AccessPolicy {
        var policy = AccessPolicy()
        if let accessLifetime {
            policy.lifetime = try CommandLineTime.duration(
                accessLifetime, "--access-lifetime", .seconds(1) ... .seconds(7 * 86_400), "1s to 7d")
        }
        if let accessHeartbeat {
            policy.heartbeat = try CommandLineTime.duration(
                accessHeartbeat, "--access-heartbeat", .seconds(5) ... .seconds(360), "5s to 6m")
        }
        if let answer = try Self.number(accessHeartbeatAnswer, Self.answerTimes, "--access-heartbeat-answer") {
            policy.heartbeatAnswer = .seconds(answer)
        }
        let base = try Self.number(accessBackOffBase, Self.waits, "--access-back-off-base").map { Duration.seconds($0) }
        let maximum = try Self.number(accessBackOffMaximum, Self.waits, "--access-back-off-maximum")
            .map { Duration.seconds($0) }
        // What is not said gives way to what is.
        policy.backOffBase = base ?? min(policy.backOffBase, maximum ?? policy.backOffBase)
        policy.backOffMaximum = maximum ?? max(policy.backOffMaximum, policy.backOffBase)
        guard policy.backOffBase <= policy.backOffMaximum else {
            throw ValidationError("--access-back-off-base is above --access-back-off-maximum.")
        }
        if let reset = try Self.number(accessBackOffReset, Self.resets, "--access-back-off-reset") {
            policy.backOffReset = .seconds(reset)
        }
        return policy
    }

    private static func number(_ value: Double?, _ range: ClosedRange<Double>, _ option: String) throws -> Double? {
        guard let value, !range.contains(value) else { return value }
        throw ValidationError("\(option) has to be \(range.lowerBound) to \(range.upperBound).")
    }

    private func place(_ text: String) throws -> NodeAddress {
        let (host, port) = try ControlOptions.split(text, "--access-point", standard: nil)
        guard port > 0 else { throw ValidationError("--access-point: '\(text)' names no port.") }
        // Without brackets nothing says where an IPv6 address ends and the port begins.
        guard AccessHost.isValid(host), text.hasPrefix("[") == host.contains(":") else {
            throw ValidationError(
                """
                --access-point: '\(text)' is not host:port. A host is a name in ASCII (xn--… for others) or a numeric address, \
                IPv6 in brackets, without https://.
                """)
        }
        return NodeAddress(host: host, port: port, isMigrationSafe: !migrationUnsafe)
    }
}
