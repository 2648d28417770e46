import ArgumentParser
import Foundation
import LonglineServer
import LonglineStore

/// Copies a server's messages while it runs.
struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Copy a server's messages into a file, while it runs.",
        discussion: """
            The copy is what the store held at one moment, in one file that only you may read. Until it is complete, '.partial' \
            is added to the file's name. Run it as the server's own user. \
            To restore it, stop the server, remove longline.db, longline.db-wal, longline.db-shm and store.identity from the \
            folder 'store' in the data folder, and put the copy there as longline.db.

            Keys, API keys and webhook notifications are not in it: the other files of the data folder hold them.
            """)

    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Argument(help: "The file to make. It must not exist yet.", completion: .file())
    var file: String

    func run() async throws {
        let directory = try ServerDirectory(existing: data)
        let total = Self.size(of: SQLiteStore.databasePath(in: directory.storePath))
        let partial = SQLiteStore.partialBackup(of: file)
        let progress = Task {
            while true {
                try await Task.sleep(for: .seconds(2))
                Output.report("* \(Self.text(Self.size(of: partial))) of about \(Self.text(total))")
            }
        }
        defer { progress.cancel() }
        try await SQLiteStore.backup(of: directory.storePath, to: file)
        try Terminal.say("\(file): \(Self.text(Self.size(of: file)))")
    }

    private static func size(of path: String) -> Int {
        (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
    }

    private static func text(_ bytes: Int) -> String {
        bytes < 10 << 20 ? "\((bytes + 1023) >> 10) KiB" : "\(bytes >> 20) MiB"
    }
}
