import Foundation
import GRDB
import Logging
import LonglineClient
import LonglineWire
import NIOCore
import Synchronization

// A process of an app, for tests that kill it: `ClientProcess share|receive PORT PIN TOKEN-FILE STORAGE MORE…`, or
// `ClientProcess open alone|shared STORAGE`.
//
// `share … TAG MILLISECONDS` sends `TAG-1`, `TAG-2`, … from a shared outbox to bob until its input ends, then waits for every
// answer and says `done`. `receive … DATABASE` stores each message's text and position in one transaction of its own database.
// Each line of the output says what is true since before it was written.
// `open` opens a storage, says `opened` and how many messages others put in, or the error's code, and closes it again.
let arguments = CommandLine.arguments

/// One line in one `write`, so that a kill leaves whole lines.
@Sendable func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

func open(_ path: String, isShared: Bool) async throws {
    do {
        if isShared {
            let storage = try SharedClientStorage(path: path)
            let database = try DatabaseQueue(path: path)
            let count = try await database.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM submission") ?? 0 }
            try database.close()
            try await storage.close()
            say("opened \(count)")
        } else {
            try SQLiteClientStorage(path: path).close()
            say("opened")
        }
    } catch let error as ClientError {
        say("\(error.code)")
    }
}

if arguments.count == 4, arguments[1] == "open" {
    try await open(arguments[3], isShared: arguments[2] == "shared")
    exit(0)
}
guard arguments.count >= 7, let port = Int(arguments[2]) else {
    FileHandle.standardError.write(Data("usage: ClientProcess share|receive PORT PIN TOKEN-FILE STORAGE MORE…\n".utf8))
    exit(64)
}
let pin = stride(from: 0, to: arguments[3].utf8.count, by: 2).compactMap { index in
    UInt8(arguments[3].dropFirst(index).prefix(2), radix: 16)
}
let tokenFile = arguments[4]

func configuration(_ storage: any ClientStorage) -> LonglineClient.Configuration {
    let file = tokenFile
    var configuration = LonglineClient.Configuration(
        accessPoints: [AccessPoint(host: "127.0.0.1", port: port)], trust: .pinnedPublicKey([pin]), storage: storage
    ) {
        try String(contentsOfFile: file, encoding: .utf8)
    }
    configuration.backOff = BackOffPolicy(base: .milliseconds(10), maximum: .milliseconds(100))
    configuration.logger.logLevel = .critical
    return configuration
}

func tellStates(_ client: LonglineClient) {
    let states = client.states
    Task {
        for await state in states {
            switch state {
            case .connected: say("state connected")
            case .standby: say("state standby")
            case .stopped(let code, _), .upgradeRequired(let code, _): say("state stopped \(code.rawValue)")
            case .disconnected, .locating, .connecting, .migrating, .waiting: break
            }
        }
    }
}

func share(tag: String, takeOverAfter: Int) async throws {
    let storage = try SharedClientStorage(
        path: arguments[5], takeOverAfter: .milliseconds(takeOverAfter), pollInterval: .milliseconds(20))
    var settings = configuration(storage)
    settings.user = try UserID("alice")
    let client = try LonglineClient(configuration: settings)
    tellStates(client)
    try await client.start()
    // Until nobody holds the other end of the input.
    let isOpen = Mutex(true)
    Thread.detachNewThread {
        var byte: UInt8 = 0
        // A process that was stopped and goes on is interrupted here.
        while case let count = read(STDIN_FILENO, &byte, 1), count > 0 || (count < 0 && errno == EINTR) {}
        isOpen.withLock { $0 = false }
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
        var number = 0
        while isOpen.withLock({ $0 }) {
            number += 1
            let (index, receipt) = (number, try await client.send("\(tag)-\(number)", to: .user("bob")))
            say("sent \(index)")
            group.addTask {
                _ = try await receipt.acknowledged()
                say("acknowledged \(index)")
            }
            try await Task.sleep(for: .milliseconds(2))
        }
        try await group.waitForAll()
    }
    say("done")
    await client.disconnect()
}

/// The app's own database, with the messages' effects and positions.
struct AppDatabase: CursorStore {
    let queue: DatabaseQueue

    init(path: String) throws {
        queue = try DatabaseQueue(path: path)
        try queue.write { database in
            try database.execute(
                sql: """
                    CREATE TABLE IF NOT EXISTS effect (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);
                    CREATE TABLE IF NOT EXISTS place (
                        channel TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL);
                    """)
        }
    }

    func store(_ message: Message) async throws {
        try await queue.write { database in
            if message.kind == .message {
                try database.execute(sql: "INSERT INTO effect (text) VALUES (?)", arguments: [message.text])
            }
            let position = message.position
            try database.execute(
                sql: "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
                arguments: [
                    message.channel.description, Int64(bitPattern: position.epoch), Int64(bitPattern: position.offset),
                ])
        }
    }

    func cursors() async throws -> [ChannelID: Position] {
        try await queue.read { database in
            var cursors: [ChannelID: Position] = [:]
            for row in try Row.fetchAll(database, sql: "SELECT channel, epoch, offset FROM place") {
                let (channel, epoch, offset): (String, Int64, Int64) = (row[0], row[1], row[2])
                cursors[try ChannelID(channel)] = Position(
                    epoch: UInt64(bitPattern: epoch), offset: UInt64(bitPattern: offset))
            }
            return cursors
        }
    }
}

func receive(database path: String) async throws {
    let database = try AppDatabase(path: path)
    var settings = configuration(try SQLiteClientStorage(path: arguments[5]))
    settings.cursorStore = database
    settings.confirmation = .explicit
    let client = try LonglineClient(configuration: settings)
    try await client.start()
    for await message in client.messages {
        try await database.store(message)
        say("stored \(message.text)")
        message.confirm()
    }
}

switch arguments[1] {
case "share" where arguments.count > 7:
    try await share(tag: arguments[6], takeOverAfter: Int(arguments[7]) ?? 500)
default: try await receive(database: arguments[6])
}
