import ArgumentParser
import Foundation
import LonglineServer
import LonglineStore
import LonglineWire

/// Signs a token with a server folder's key.
struct SignTokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Sign a token for a device, with the key in a server's data folder.",
        discussion: """
            Prints the token alone, so that it can go to a file. Whoever has it is that user and device until it expires \
            or is revoked: keep it as you would a password.
            """)

    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Option(help: "The tenant.")
    var tenant: String = "default"

    @Option(help: "The user.")
    var user: String

    @Option(help: "The device; each of a user's devices has a name of its own.")
    var device: String

    @Option(help: "How long it is valid: a number with s, m, h or d.")
    var lifetime: String = "24h"

    @Option(help: "What it allows: any of publish, receive and join, separated by commas.")
    var scope: String = "publish,receive,join"

    @Option(
        help: """
            The login's number: a session of a higher one takes over from a lower one on the same device. By default the \
            time in seconds.
            """)
    var loginEpoch: UInt64?

    @Option(help: "How often the user had been revoked.")
    var userGeneration: UInt64 = 0

    @Option(help: "How often the device had been revoked.")
    var deviceGeneration: UInt64 = 0

    func run() async throws {
        let directory = try ServerDirectory(data)
        let token = try await directory.sign(
            tenant: try name("--tenant", tenant, TenantID.init), user: try name("--user", user, UserID.init),
            device: try name("--device", device, DeviceID.init), lifetime: try milliseconds(), scopes: try scopes(),
            loginEpoch: loginEpoch,
            generations: RevocationGenerations(user: userGeneration, device: deviceGeneration))
        print(token)
    }

    private func name<ID>(_ option: String, _ text: String, _ make: (String) throws -> ID) throws -> ID {
        do { return try make(text) } catch {
            throw ValidationError("\(option): '\(text)' has to be 1 to 64 of A-Z a-z 0-9 . _ ~ @ + -")
        }
    }

    private func milliseconds() throws -> UInt64 {
        let units: [Character: UInt64] = ["s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]
        guard let unit = lifetime.last.flatMap({ units[$0] }), let count = UInt64(lifetime.dropLast()),
            (1...36_500 * 86_400).contains(count)
        else { throw ValidationError("--lifetime: '\(lifetime)' is no time such as 90s, 15m, 24h or 30d.") }
        return count * unit
    }

    private func scopes() throws -> TokenScopes {
        let known: [Substring: TokenScopes] = ["publish": .publish, "receive": .receive, "join": .join]
        return try scope.split(separator: ",").reduce(into: []) { scopes, word in
            guard let one = known[word] else {
                throw ValidationError("--scope: '\(word)' is none of publish, receive and join.")
            }
            scopes.insert(one)
        }
    }
}
