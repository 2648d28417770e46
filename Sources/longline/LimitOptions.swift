import ArgumentParser
import LonglineServer
import LonglineWire

/// What users of a server may take.
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
            "The largest message in bytes; those over \(FrameLimits.maximumPayload) travel in parts.",
            valueName: "bytes"))
    var maximumPayload: Int = ServerLimits().maximumPayload

    func validate() throws {
        if let publishRate, !(publishRate > 0 && publishRate <= 1e9) {
            throw ValidationError("--publish-rate has to be above 0.")
        }
        if let publishBurst {
            guard publishBurst >= 1 else { throw ValidationError("--publish-burst has to be 1 or more.") }
            guard publishRate != nil else { throw ValidationError("--publish-burst goes with --publish-rate.") }
        }
        guard (1...FrameLimits.maximumWholePayload).contains(maximumPayload) else {
            throw ValidationError("--maximum-payload has to be 1 to \(FrameLimits.maximumWholePayload).")
        }
    }

    var limits: ServerLimits {
        var limits = ServerLimits()
        limits.maximumPayload = maximumPayload
        limits.publishRatePerUser = publishRate.map {
            PublishRate(messagesPerSecond: $0, messageBurst: publishBurst ?? max(1, Int($0 * 10)))
        }
        return limits
    }
}
