import ArgumentParser
import Foundation
import LonglineControl
import LonglineServer
import LonglineStore

/// Shows and replaces the keys that a folder's tokens are signed with.
struct KeysCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Show, prepare or rotate the keys that 'longline token' and the control layer sign with.",
        discussion: """
            A new key takes the old one's place with overlap: tokens that the old one signed stay good until it is removed, \
            by the next rotation or by hand. A server that runs on the folder learns of it at once. Where one can't be told, in a \
            process of yours without a control socket, the command says so: restart that process.
            """,
        subcommands: [List.self, Prepare.self, Rotate.self, Remove.self], defaultSubcommand: List.self)

    private static func validate(algorithm: String) throws {
        if TokenAlgorithm(rawValue: algorithm) == nil { throw ValidationError("--algorithm is EdDSA or ES256.") }
    }

    /// What a server on the folder knows of its keys.
    enum ServerKnowledge {
        case told
        /// A process has the store open and takes no requests.
        case unreachable
        case noServer

        /// What the operator is told, behind what was done.
        var remark: String {
            switch self {
            case .told: "the server that runs there knows"
            case .noServer: "no server runs there"
            case .unreachable:
                "a process has the folder open that can't be told, without a control socket: restart it, or it may go on "
                    + "with the keys before"
            }
        }
    }

    struct Folder: ParsableArguments {
        @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
        var data: String = "longline-data"

        /// Has a server that runs on the folder read its keys again.
        func tellServer() async throws { _ = try await serverKnowledge() }

        /// Has a server that runs on the folder read its keys again.
        func serverKnowledge() async throws -> ServerKnowledge {
            if let control = try? ServerControl(folder: data) {
                do throws(ServerError) {
                    try await control.reloadTokenKeys()
                    return .told
                } catch {
                    guard error.code == .notRunning else { throw error }
                }
            }
            // Without a server there is nobody to tell; with one that takes no requests nobody knows.
            return try ServerDirectory(existing: data).isInUse ? .unreachable : .noServer
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the keys that are trusted, newest first.")

        @OptionGroup var folder: Folder

        @Flag(
            help: "As a JWKS (RFC 7517), for other services that verify the tokens, and for clients (--control-keys).")
        var jwks = false

        func run() async throws {
            let directory = try ServerDirectory(existing: folder.data)
            let keys = try directory.trustedKeys()
            if jwks {
                return try Output.write(JSONWebKeySet(keys: keys).json)
            }
            let roles = [
                try directory.signingKey().keyID: "  signs", try directory.nextSigningKey()?.keyID: "  signs next",
            ]
            for key in keys { try Terminal.say("\(key.keyID)  \(key.algorithm.rawValue)\(roles[key.keyID] ?? "")") }
        }
    }

    struct Prepare: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make the key that signs after the next rotation, and publish it.",
            discussion: """
                It is trusted, and in the control layer's key set, from now on: whoever keeps a copy of that set, as apps do, has \
                it before it signs. One that was prepared before stays.
                """)

        @OptionGroup var folder: Folder

        @Option(help: "EdDSA or ES256.")
        var algorithm: String = TokenAlgorithm.edDSA.rawValue

        func validate() throws { try KeysCommand.validate(algorithm: algorithm) }

        func run() async throws {
            let key = try await ServerDirectory(existing: folder.data).prepareSigningKey(
                algorithm: TokenAlgorithm(rawValue: algorithm) ?? .edDSA)
            let server = try await folder.serverKnowledge()
            try Terminal.say("\(key.keyID) signs after the next rotation (\(server.remark))")
        }
    }

    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sign with a new key: the prepared one, if there is one.",
            discussion: """
                Where the folder has a control layer, others keep its key set for up to a minute. A key that has not been in the \
                set for so long is published at once, and signs when they all have it; until then this command waits. Cut \
                off meanwhile, it leaves a prepared key, which the next rotation takes. --now and --keep 0 don't wait.
                """)

        @OptionGroup var folder: Folder

        @Option(
            help: """
                How many of the folder's keys before stay trusted; 0 voids every token that they signed, and the tickets from \
                it. Other keys (--jwks, --token-key) stay, and sessions that are up live on: revoke users to end them.
                """)
        var keep: Int = 1

        @Option(help: "EdDSA or ES256, of a key that wasn't prepared.")
        var algorithm: String = TokenAlgorithm.edDSA.rawValue

        @Flag(help: "Don't wait until whoever keeps a copy of the key set has the new key.")
        var now = false

        func validate() throws {
            try KeysCommand.validate(algorithm: algorithm)
            guard (0..<JSONWebKeySet.maximumKeys).contains(keep) else {
                throw ValidationError("--keep is 0 to \(JSONWebKeySet.maximumKeys - 1).")
            }
        }

        func run() async throws {
            let (key, server) = try await rotate { try await Task.sleep(for: $0) }
            try Terminal.say("\(key.keyID) signs from now on (\(server.remark))")
        }

        /// - Parameter wait: waits for so long.
        /// - Returns: the key that signs now, and what a server knows.
        func rotate(
            _ wait: (Duration) async throws -> Void
        ) async throws -> (key: SigningKey, server: ServerKnowledge) {
            let directory = try ServerDirectory(existing: folder.data)
            let algorithm = TokenAlgorithm(rawValue: algorithm) ?? .edDSA
            // What nothing is kept of was stolen, or the like: that can't wait. And without a control layer nobody gets the set.
            if !now, keep > 0, ControlDatabase.exists(directory) {
                let next = try await directory.prepareSigningKey(algorithm: algorithm, trusted: folder.tellServer)
                let time = directory.timeUntilKnown(now: WallClock.milliseconds())
                if time > .zero {
                    let seconds = time.components.seconds + 1
                    Output.report("\(next.keyID) is published, and signs in \(seconds) s (with --now: at once)")
                    try await wait(time)
                }
            }
            let key = try await directory.rotateSigningKey(
                keep: keep, algorithm: algorithm, trusted: folder.tellServer)
            // The control layer signs with it from now on, and with nothing kept the old key goes.
            return (key, try await folder.serverKnowledge())
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Stop trusting a key.",
            discussion: """
                Tokens that it signed, and tickets that came from them, open no session any more. Sessions that are up live \
                on until their credential expires: to end them at once, revoke their users.
                """)

        @OptionGroup var folder: Folder

        @Argument(help: "The key's ID, as 'longline keys' shows it.")
        var key: String

        func run() async throws {
            guard try ServerDirectory(existing: folder.data).removeTrustedKey(key) else {
                throw ValidationError("No key \(key) is trusted.")
            }
            let server = try await folder.serverKnowledge()
            try Terminal.say("\(key) is not trusted any more (\(server.remark))")
        }
    }
}
