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
            or is revoked: keep it as you would a password, and call 'umask 077' before it goes to a file.
            """)

    @OptionGroup var whose: ServerUserOptions

    @Option(help: "The device; each of a user's devices has a name of its own.")
    var device: String

    private static let longestLifetime: UInt64 = 36_500 * 86_400_000

    @Option(help: "How long it is valid: a number with s, m, h or d; 36500d at most.")
    var lifetime: String = "24h"

    @Option(
        help: """
            What it allows: any of publish, receive, join, manage, presence and erase, separated by commas; each alone, or for \
            some channels only: publish:room/team-*, receive:user/bob. Publishing to all is named always: publish:all/news.
            """)
    var scope: String = "publish,receive,join,manage,presence"

    @Option(
        help: """
            The login's number: a session of a higher one takes over from a lower one on the same device, or on \
            another one where --device-policy says so. By default the time in seconds.
            """)
    var loginEpoch: UInt64?

    @Option(
        help:
            "What kind of device it is, for a server with --device-policy: phone, tablet, desktop, web or another word."
    )
    var platform: String?

    @Option(help: "How often the user had been revoked; by default a running server is asked.")
    var userGeneration: UInt64?

    @Option(help: "How often the device had been revoked; by default a running server is asked.")
    var deviceGeneration: UInt64?

    func run() async throws {
        let device = DeviceKey(
            tenant: try whose.tenantID(), user: try whose.userID(),
            device: try Name.parse("--device", device, DeviceID.init))
        let rights = try rights()
        let lifetime = try CommandLineTime.milliseconds(lifetime, "--lifetime")
        guard lifetime <= Self.longestLifetime else { throw ValidationError("--lifetime is 36500d at most.") }
        let platform = try platform.map {
            try Name.parse("--platform", $0, limit: DevicePlatform.limit, DevicePlatform.init)
        }
        let isNew = !ServerDirectory.exists(at: whose.data)
        let directory = try ServerDirectory(whose.data)
        if isNew {
            Output.report(
                "* \(whose.data) was made, with a key of its own: a server believes the token if it runs on that folder"
            )
        }
        let token = try await directory.sign(
            tenant: device.tenant, user: device.user, device: device.device,
            lifetime: lifetime, scopes: rights.scopes, grants: rights.grants, loginEpoch: loginEpoch,
            platform: platform ?? .unknown,
            generations: try await generations(of: device, directory))
        try Terminal.say(token)
    }

    /// A token that does not carry the present generations is refused as revoked.
    private func generations(
        of device: DeviceKey, _ directory: ServerDirectory
    ) async throws -> RevocationGenerations {
        var known = RevocationGenerations(user: userGeneration ?? 0, device: deviceGeneration ?? 0)
        guard userGeneration == nil || deviceGeneration == nil, let control = try? directory.control() else {
            return known
        }
        do throws(ServerError) {
            let present = try await control.generations(of: device)
            known.user = userGeneration ?? present.user
            known.device = deviceGeneration ?? present.device
        } catch {
            // Without a server there is nobody to ask: most users and devices were never revoked.
            if error.code != .notRunning { throw error }
        }
        return known
    }

    private func rights() throws -> ScopeClaim {
        var rights = ScopeClaim(scopes: [])
        for word in scope.split(separator: ",") {
            let one = try ScopeClaim(String(word))
            guard one != ScopeClaim(scopes: []) else {
                throw ValidationError(
                    "--scope: '\(word)' is none of publish, receive, join, manage, presence and erase, alone or with a pattern such as "
                        + "publish:room/team-* or receive:user/bob.")
            }
            rights.scopes.formUnion(one.scopes)
            rights.grants += one.grants
        }
        return rights
    }
}
