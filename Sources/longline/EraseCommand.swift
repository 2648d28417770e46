import ArgumentParser
import Foundation
import LonglineServer
import LonglineStore
import LonglineWire

#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// Erases an account on a running server.
struct EraseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "erase",
        abstract: "Erase a user's account, while the server runs.",
        discussion: """
            Ends the user's sessions, voids all credentials, then forgets inbox, memberships, devices, outboxes and cursors. \
            Messages that the user sent to others, and into rooms, stay theirs. It can't be undone.

            Talks to the server by the socket in its data folder, as the server's own user. When it breaks off, or says that \
            something is missing, run it again: it goes on where it stood.
            """)

    @OptionGroup var whose: ServerUserOptions

    @Flag(help: "Don't ask. Needed where nobody can answer.")
    var yes = false

    func run() async throws {
        let (tenant, user) = (try whose.tenantID(), try whose.userID())
        let control = try ServerControl(folder: whose.data)
        if !yes { try confirm(user, tenant) }
        try await control.erase(user: user, in: tenant)
        try Terminal.say("erased \(user) of tenant \(tenant)")
    }

    /// Has the name typed once more: a yes comes too easily.
    private func confirm(_ user: UserID, _ tenant: TenantID) throws {
        guard isatty(STDIN_FILENO) == 1 else {
            throw ValidationError("Nobody is there to confirm it: give --yes if you mean it.")
        }
        let question =
            "Everything of \(user) in tenant \(tenant) will be gone for good. Type the user's name to go on: "
        Output.report(question.utf8)
        guard readLine() == user.description else { throw ValidationError("Not confirmed: nothing was erased.") }
    }
}
