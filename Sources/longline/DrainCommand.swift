import ArgumentParser
import Foundation
import LonglineClient
import LonglineServer

/// Moves the clients of a running server away.
struct DrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Take nobody in any more, and move the clients of a running server away.",
        discussion: """
            Each client is told to connect again, so many a second. It lasts until the server is stopped; asked again, it goes on \
            at the new rate and with the new --to. Talks to the server by the socket in its data folder, as the server's own user.
            """)

    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Option(help: "Clients that are moved away each second.")
    var rate: Int = 100

    @Option(
        name: .customLong("to"), help: "Where clients are sent, as host:port. By default they choose by themselves.")
    var accessPoint: String?

    @Flag(help: "Return when nobody is left; says how many are, every few seconds.")
    var wait = false

    func validate() throws {
        guard LonglineServer.drainRates.contains(rate) else {
            throw ValidationError("--rate is 1 to \(LonglineServer.drainRates.upperBound) clients a second.")
        }
        if let accessPoint, AccessPoint(accessPoint) == nil {
            throw ValidationError("--to takes host:port, or [address]:port for IPv6.")
        }
    }

    func run() async throws {
        let control = try ServerControl(folder: data)
        var left = try await control.drain(rate: rate, to: accessPoint)
        guard wait else { return try Terminal.say("draining \(rate) a second, \(left) left") }
        var told = ContinuousClock.now
        while left > 0 {
            try await Task.sleep(for: .milliseconds(500))
            left = try await control.status().connections
            if left > 0, told.duration(to: .now) > .seconds(3) {
                Output.report("* \(left) left")
                told = .now
            }
        }
        try Terminal.say("drained")
    }
}
