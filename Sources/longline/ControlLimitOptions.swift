import ArgumentParser
import LonglineControl

/// What callers of the control layer may take.
struct ControlLimitOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Connections of one listener of the control layer at a time; by default 4096. More wait.",
            valueName: "connections"))
    var controlLimitConnections: Int?

    @Option(
        help: ArgumentHelp(
            "How long a request may take altogether before it gets 503, up to 1h; by default 30s.", valueName: "time"))
    var controlLimitRequestTimeout: String?

    @Option(
        help: ArgumentHelp(
            "How long a request's body may take to come before it gets 408, up to 1h; by default 15s.",
            valueName: "time"))
    var controlLimitBodyTimeout: String?

    @Option(
        help: ArgumentHelp(
            "How long a connection may say nothing before it is closed, up to 1h; by default 60s.", valueName: "time"))
    var controlLimitIdleTimeout: String?

    @Option(
        help: ArgumentHelp(
            "The longest life of a token that is issued, up to 30d, which is the default.", valueName: "time"))
    var controlLimitTokenLifetime: String?

    static let connections = 1...1_000_000

    func validate() throws { _ = try limits() }

    /// An option that is there although nothing would come of it without a control layer.
    var first: String? {
        let given: [(String, Bool)] = [
            ("--control-limit-connections", controlLimitConnections != nil),
            ("--control-limit-request-timeout", controlLimitRequestTimeout != nil),
            ("--control-limit-body-timeout", controlLimitBodyTimeout != nil),
            ("--control-limit-idle-timeout", controlLimitIdleTimeout != nil),
            ("--control-limit-token-lifetime", controlLimitTokenLifetime != nil),
        ]
        return given.first { $0.1 }?.0
    }

    func limits() throws -> ControlLimits {
        var limits = ControlLimits()
        if let controlLimitConnections {
            guard Self.connections.contains(controlLimitConnections) else {
                throw ValidationError("--control-limit-connections has to be 1 to \(Self.connections.upperBound).")
            }
            limits.connections = controlLimitConnections
        }
        func hour(_ text: String?, _ option: String, _ path: WritableKeyPath<ControlLimits, Duration>) throws {
            guard let text else { return }
            limits[keyPath: path] = try CommandLineTime.duration(
                text, option, .seconds(1) ... .seconds(3_600), "1s to 1h")
        }
        try hour(controlLimitRequestTimeout, "--control-limit-request-timeout", \.requestTimeout)
        try hour(controlLimitBodyTimeout, "--control-limit-body-timeout", \.bodyTimeout)
        try hour(controlLimitIdleTimeout, "--control-limit-idle-timeout", \.idleTimeout)
        if let text = controlLimitTokenLifetime {
            limits.tokenLifetime = try CommandLineTime.duration(
                text, "--control-limit-token-lifetime", .seconds(1) ... .seconds(30 * 86_400), "1s to 30d")
        }
        return limits
    }
}
