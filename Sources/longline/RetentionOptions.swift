import ArgumentParser
import LonglineServer
import LonglineStore
import NIOCore

/// What of the messages a server keeps.
struct RetentionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Remove messages from inboxes that are older: a number with s, m, h or d.", valueName: "time"))
    var inboxMaxAge: String?

    @Option(help: ArgumentHelp("Keep so many entries in an inbox at most, the newest.", valueName: "number"))
    var inboxMaxEntries: Int?

    @Option(
        help: ArgumentHelp(
            "Keep so many bytes of messages in an inbox at most: a number, or one with K, M or G (of 1024).",
            valueName: "bytes"))
    var inboxMaxBytes: String?

    @Option(
        help: ArgumentHelp(
            "Remove messages from rooms that are older: a number with s, m, h or d.", valueName: "time"))
    var roomMaxAge: String?

    @Option(help: ArgumentHelp("Keep so many entries in a room at most, the newest.", valueName: "number"))
    var roomMaxEntries: Int?

    @Option(
        help: ArgumentHelp(
            "Keep so many bytes of messages in a room at most: a number, or one with K, M or G (of 1024).",
            valueName: "bytes"))
    var roomMaxBytes: String?

    @Option(
        help: ArgumentHelp(
            "Remove messages from broadcasts (all/NAME) that are older: a number with s, m, h or d.", valueName: "time")
    )
    var broadcastMaxAge: String?

    @Option(help: ArgumentHelp("Keep so many entries in a broadcast at most, the newest.", valueName: "number"))
    var broadcastMaxEntries: Int?

    @Option(
        help: ArgumentHelp(
            "Keep so many bytes of messages in a broadcast at most: a number, or one with K, M or G (of 1024).",
            valueName: "bytes"))
    var broadcastMaxBytes: String?

    @Option(
        help: ArgumentHelp(
            "How often the server removes what it does not keep. Without one of the rules above it keeps everything.",
            valueName: "time"))
    var retentionInterval = "10m"

    func validate() throws { _ = try policy() }

    func policy() throws -> RetentionPolicy {
        let interval = try CommandLineTime.milliseconds(retentionInterval, "--retention-interval")
        guard interval <= 365 * 86_400_000 else {
            throw ValidationError("--retention-interval has to be 365d or less.")
        }
        return RetentionPolicy(
            inbox: try Self.rule("inbox", age: inboxMaxAge, entries: inboxMaxEntries, bytes: inboxMaxBytes),
            room: try Self.rule("room", age: roomMaxAge, entries: roomMaxEntries, bytes: roomMaxBytes),
            broadcast: try Self.rule(
                "broadcast", age: broadcastMaxAge, entries: broadcastMaxEntries, bytes: broadcastMaxBytes),
            interval: .milliseconds(Int64(interval)))
    }

    private static func rule(_ kind: String, age: String?, entries: Int?, bytes: String?) throws -> Retention {
        if let entries, entries < 1 {
            throw ValidationError("--\(kind)-max-entries has to be 1 or more; leave it out to keep all.")
        }
        return Retention(
            age: try age.map { try CommandLineTime.milliseconds($0, "--\(kind)-max-age") }, entries: entries,
            bytes: try bytes.map { try CommandLineSize.bytes($0, "--\(kind)-max-bytes") })
    }
}
