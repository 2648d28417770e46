import ArgumentParser
import LonglineClient
import LonglineWire

/// What of a catch-up may come compressed.
struct CompressionOptions: ParsableArguments {
    @Flag(help: "Let the service compress what was missed; each sender's messages apart from all others'.")
    var compress = false

    @Option(
        help: ArgumentHelp(
            "A channel of which nothing is compressed: room/NAME, all/NAME or user/NAME. Give it several times for several.",
            valueName: "channel"))
    var plain: [String] = []

    func validate() throws { _ = try compression() }

    /// The options as a setting of a client.
    func compression() throws -> Compression {
        guard compress else {
            guard plain.isEmpty else { throw ValidationError("--plain goes with --compress.") }
            return .off
        }
        let channels = Set(try plain.map(Self.channel))
        guard channels.count <= FrameLimits.maximumPlainChannels else {
            throw ValidationError("--plain names more than \(FrameLimits.maximumPlainChannels) channels.")
        }
        return .on(except: channels)
    }

    private static func channel(_ text: String) throws -> ChannelID {
        do { return try ChannelID(text) } catch {
            throw ValidationError("--plain: '\(text)' is none of user/NAME, room/NAME and all/NAME.")
        }
    }
}
