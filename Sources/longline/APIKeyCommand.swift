import ArgumentParser
import Foundation
import LonglineControl
import LonglineServer
import LonglineWire

/// Makes, lists and revokes API keys of a server's folder.
struct APIKeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apikey", abstract: "Make, list and revoke API keys of app servers and operators.",
        discussion: """
            The folder keeps only the hash of a key. A server that runs on the folder learns of changes at once.
            """,
        subcommands: [Create.self, List.self, Revoke.self], defaultSubcommand: List.self)

    struct Folder: ParsableArguments {
        @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
        var data: String = "longline-data"

        /// - Parameter existing: whether the folder has to be there already.
        func keys(existing: Bool = true) throws -> APIKeys {
            APIKeys(try ControlDatabase(existing ? try ServerDirectory(existing: data) : try ServerDirectory(data)))
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a key, and print it.",
            discussion: """
                It is printed once, alone on standard output, so that it can go to a file; its name goes to standard error. Whoever \
                has it may do what its rights say: keep it as you would a password, and call 'umask 077' before it goes to a file.
                """)

        private static let standardTenant = "default"
        private static let standardRights = "tokens,revoke,publish,history,rooms"

        @OptionGroup var folder: Folder

        @Option(help: "The tenant that it is for.")
        var tenant: String = Create.standardTenant

        @Flag(name: .customLong("operator"), help: "An operator's key, for all tenants and for nodes.")
        var isOperator = false

        @Option(
            help: """
                What it may be used for: tokens, revoke, erase, publish, history, retract, rooms, operate; separated by commas. \
                docs/control.md says which routes each is for.
                """)
        var rights: String = Create.standardRights

        @Option(help: "What you call it.")
        var label: String = ""

        func validate() throws {
            guard isOperator, tenant != Self.standardTenant || ![Self.standardRights, "operate"].contains(rights) else {
                return
            }
            throw ValidationError(
                "--operator is for all tenants and has the right operate: it contradicts --tenant and --rights.")
        }

        func run() async throws {
            let named = try self.rights.split(separator: ",").map { word in
                guard let right = APIKeyRight(rawValue: String(word)) else {
                    throw ValidationError(
                        "--rights: '\(word)' is none of "
                            + APIKeyRight.allCases.map(\.rawValue).joined(separator: ", ") + ".")
                }
                return right
            }
            let rights: Set<APIKeyRight> = isOperator ? [.operate] : Set(named)
            let tenant = try isOperator ? nil : Name.parse("--tenant", tenant, TenantID.init)
            if !ServerDirectory.exists(at: folder.data) {
                Output.report("* \(folder.data) was made: a server knows the key if it runs on that folder")
            }
            let keys = try folder.keys(existing: false)
            let made = try await keys.create(tenant: tenant, rights: rights, label: label)
            do { try Terminal.say(made.key) } catch {
                // Nobody has it, and nobody ever will.
                _ = try await keys.revoke(id: made.info.id)
                Output.report("\(made.info.id) made, and revoked again, since it could not be printed")
                throw error
            }
            Output.report("\(made.info.id) made")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show all keys by their names, oldest first.")

        @OptionGroup var folder: Folder

        func run() async throws {
            for key in try await folder.keys().list() {
                let rights = key.rights.map(\.rawValue).sorted().joined(separator: ",")
                let tenant = key.tenant.map { "tenant \($0)" } ?? "all tenants"
                let state = key.revoked == nil ? "" : "  revoked"
                try Terminal.say("\(key.id)  \(tenant)  \(rights)  \(Terminal.printable(key.label))\(state)")
            }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Revoke a key: it can't be used any more.")

        @OptionGroup var folder: Folder

        @Argument(help: "The key's name, as 'longline apikey list' shows it.")
        var key: String

        func run() async throws {
            guard try await folder.keys().revoke(id: key) else {
                throw ValidationError("There is no key \(key) that is good.")
            }
            try Terminal.say("\(key) is revoked")
        }
    }
}
