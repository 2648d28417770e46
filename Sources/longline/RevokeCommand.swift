import ArgumentParser
import Foundation
import LonglineServer
import LonglineStore
import LonglineWire

/// Shuts somebody out of a server that runs.
struct RevokeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revoke",
        abstract: "Shut a user, a device or one token out of a running server, at once.",
        discussion: """
            It is durable when the command returns, and live sessions have ended with 3002. It reaches the server by the \
            socket control.sock in its data folder, so run it as the same user on the same machine.

            Give --user for all of a user's devices, --user and --device for one of them, or --token for one token by its \
            ID (the claim jti, not the token itself) with the tickets that came from it.
            """)

    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Option(help: "The tenant.")
    var tenant: String = "default"

    @Option(help: "The user.")
    var user: String?

    @Option(help: "One device of the user.")
    var device: String?

    @Option(help: "The ID of a token: its claim jti.")
    var token: String?

    @Option(
        help: """
            When the token expires by itself, in seconds since 1970: then the server forgets it. By default it never does.
            """)
    var expires: UInt64?

    func validate() throws {
        guard (user != nil) != (token != nil) else { throw ValidationError("Give either --user or --token.") }
        if device != nil && user == nil { throw ValidationError("--device needs its --user.") }
        if expires != nil && token == nil { throw ValidationError("--expires belongs to --token.") }
        // A lifetime, or milliseconds. What seems over would be forgotten at the next sweep, and the token good again.
        if let expires, !(1_000_000_000...253_402_300_799).contains(expires) {
            throw ValidationError("--expires is in seconds since 1970.")
        }
        if let token, token.contains(".") || token.utf8.count > 128 {
            throw ValidationError("--token takes the token's ID, the claim jti, not the token itself.")
        }
    }

    func run() async throws {
        let control = try ServerControl(folder: data)
        let tenant = try Name.parse("--tenant", tenant, TenantID.init)
        if let token {
            let until = expires.map { $0 * 1000 } ?? .max
            try await control.revoke(token: token, in: tenant, until: until)
            return try Terminal.say("revoked token \(token)")
        }
        let user = try Name.parse("--user", user ?? "", UserID.init)
        if let device {
            let device = try Name.parse("--device", device, DeviceID.init)
            try await control.revoke(device: DeviceKey(tenant: tenant, user: user, device: device))
            try Terminal.say("revoked device \(device) of \(user)")
        } else {
            try await control.revoke(user: user, in: tenant)
            try Terminal.say("revoked user \(user)")
        }
    }
}

/// Names given as options.
enum Name {
    static func parse<ID>(
        _ option: String, _ text: String, limit: Int = 64, _ make: (String) throws -> ID
    ) throws -> ID {
        do { return try make(text) } catch {
            throw ValidationError("\(option): '\(text)' has to be 1 to \(limit) of A-Z a-z 0-9 . _ ~ @ + -")
        }
    }
}
