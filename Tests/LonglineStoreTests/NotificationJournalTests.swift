import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// The notifications that wait, on disk.
@Suite struct NotificationJournalTests {
    @Test func everythingOfANotificationIsKept() async throws {
        let folder = try TemporaryFolder()
        let tenant = try TenantID("acme")
        let bob = try UserID("bob")
        let notifications = try ["ann", "eve"].enumerated().map { index, sender in
            let sender = try UserID(sender)
            return PendingNotification(
                key: PendingNotification.Key(tenant: tenant, user: bob, conversation: .user(sender)),
                channel: .user(bob), position: Position(epoch: .max, offset: 7), sender: sender, count: 2,
                time: 40 + UInt64(index), expiry: 50, until: 60, payload: index == 0 ? ByteBuffer(string: "one") : nil,
                since: 30 + UInt64(index), failures: 3, notBefore: 70)
        }
        let path = folder.path + "/notifications.db"
        let journal = try NotificationJournal(path: path)
        try await journal.apply(keep: notifications, forget: [])
        try journal.close()
        let next = try NotificationJournal(path: path)
        #expect(try await next.load() == notifications)
        try await next.apply(keep: [], forget: [notifications[0].key])
        #expect(try await next.load() == [notifications[1]])
        try next.close()
    }

    @Test func aUserIsForgottenAndNobodyElse() async throws {
        let folder = try TemporaryFolder()
        let journal = try NotificationJournal(path: folder.path + "/notifications.db")
        let users = try [("acme", "bob"), ("acme", "eve"), ("other", "bob")].map { try (TenantID($0), UserID($1)) }
        func news(_ user: (TenantID, UserID), of sender: String) throws -> PendingNotification {
            PendingNotification(
                key: PendingNotification.Key(tenant: user.0, user: user.1, conversation: .user(try UserID(sender))),
                channel: .user(user.1), position: Position(epoch: 1, offset: 7), sender: try UserID(sender), count: 1,
                time: 40, expiry: 0, payload: nil, since: 30, notBefore: 70)
        }
        try await journal.apply(
            keep: try users.flatMap { try [news($0, of: "ann"), news($0, of: "joe")] }, forget: [])
        try await journal.forget(users[0].1, in: users[0].0)
        let left = try await journal.load().map { "\($0.key.tenant)/\($0.key.user)" }
        #expect(Set(left) == ["acme/eve", "other/bob"] && left.count == 4)
        try journal.close()
        await #expect(throws: StoreError.self) { try await journal.forget(users[0].1, in: users[0].0) }
    }

    @Test func aFileThatIsNoDatabaseIsToBeMovedAway() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("notifications.db", String(repeating: "no database ", count: 1_000))
        let error = #expect(throws: StoreError.self) { _ = try NotificationJournal(path: path) }
        #expect(error?.advice.contains("move it away") == true)
    }

    @Test func aLogThatWasLeftBehindIsWrittenAgain() async throws {
        let folder = try TemporaryFolder()
        let killed = try TemporaryFolder()
        let journal = try NotificationJournal(path: folder.file("notifications.db"))
        try await journal.apply(keep: [], forget: [])
        for file in ["notifications.db", "notifications.db-wal"] {
            try FileManager.default.copyItem(atPath: folder.file(file), toPath: killed.file(file))
        }
        try journal.close()
        let (log, old) = (killed.file("notifications.db-wal"), Date(timeIntervalSince1970: 1_000_000))
        try FileManager.default.setAttributes([.modificationDate: old], ofItemAtPath: log)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: log)).count
        let next = try NotificationJournal(path: killed.file("notifications.db"))
        let attributes = try FileManager.default.attributesOfItem(atPath: log)
        #expect(bytes > 0 && attributes[.size] as? Int == bytes)
        #expect(attributes[.modificationDate] as? Date != old)
        try next.close()
    }

    @Test func ofSeveralThatAnEarlierVersionKeptAnyMayLast() async throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/notifications.db"
        let queue = try DatabaseQueue(path: path)
        try NotificationJournal.migrator.migrate(queue, upTo: "1")
        try await queue.write { database in
            for (sender, count) in [("ann", 1), ("eve", 2)] {
                try database.execute(
                    sql: """
                        INSERT INTO notification VALUES
                        ('acme', 'bob', 'user/' || :sender, 'user/bob', 1, 7, :sender, :count, 40, 50, NULL, :count, 0, 70)
                        """, arguments: ["sender": sender, "count": count])
            }
        }
        try queue.close()
        let journal = try NotificationJournal(path: path)
        #expect(try await journal.load().map(\.until) == [50, 0])
        try journal.close()
    }
}
