import Dispatch
import Foundation
import GRDB
import LonglineServer
import LonglineStore
import LonglineTestKit
import Synchronization
import Testing

@testable import LonglineControl

@Suite("The control database", .timeLimit(.minutes(2))) struct ControlDatabaseTests {
    @Test("is opened by many at one moment, while it is made and later")
    func atOnce() throws {
        for _ in 0..<10 {
            let folder = try TemporaryFolder()
            for _ in 0..<2 {
                let results = Mutex([Result<NodeID, ControlError>]())
                DispatchQueue.concurrentPerform(iterations: 6) { _ in
                    let result = Result<NodeID, ControlError> { () throws(ControlError) in
                        try ControlDatabase(path: folder.path + "/control.db").nodeID()
                    }
                    results.withLock { $0.append(result) }
                }
                let nodes = try results.withLock { $0 }.map { try $0.get() }
                #expect(nodes.count == 6 && Set(nodes).count == 1)
            }
        }
    }

    @Test("waits for one that is opening it, and says so when that doesn't end")
    func stopped() throws {
        let folder = try TemporaryFolder()
        let lock = try OpeningLock(folder: folder.path)
        let error = #expect(throws: ControlError.self) {
            _ = try OpeningLock(folder: folder.path, patience: .milliseconds(1))
        }
        #expect(error?.code == .storeUnavailable && error?.message.contains("opening") == true)
        _ = consume lock
        _ = try OpeningLock(folder: folder.path, patience: .zero)
    }

    @Test("says which folder it can't be made in")
    func missing() throws {
        let folder = try TemporaryFolder()
        let error = #expect(throws: ControlError.self) {
            _ = try ControlDatabase(path: folder.path + "/gone/control.db")
        }
        #expect(error?.code == .storeUnavailable && error?.message.contains("gone") == true)
    }

    @Test("has a log that was left behind written again, unless somebody has it open")
    func leftover() throws {
        let folder = try TemporaryFolder()
        let killed = try TemporaryFolder()
        let first = try ControlDatabase(path: folder.file("control.db"))
        try first.pool.write { try $0.execute(sql: "INSERT INTO numbers VALUES ('k', 7)") }
        for file in ["control.db", "control.db-wal"] {
            try FileManager.default.copyItem(atPath: folder.file(file), toPath: killed.file(file))
        }
        try first.close()
        let (log, old) = (killed.file("control.db-wal"), Date(timeIntervalSince1970: 1_000_000))
        func isWritten() throws -> Bool {
            try FileManager.default.attributesOfItem(atPath: log)[.modificationDate] as? Date != old
        }
        func age() throws { try FileManager.default.setAttributes([.modificationDate: old], ofItemAtPath: log) }
        try age()
        let second = try ControlDatabase(path: killed.file("control.db"))
        #expect(try isWritten())
        #expect(try second.pool.read { try Int.fetchOne($0, sql: "SELECT last FROM numbers") } == 7)
        try age()
        let third = try ControlDatabase(path: killed.file("control.db"))
        #expect(try !isWritten(), "the second one may be writing it")
        try third.close()
        try second.close()
        // Whoever closed it stands in nobody's way.
        if FileManager.default.fileExists(atPath: folder.file("control.db-wal")) {
            try FileManager.default.removeItem(atPath: folder.file("control.db-wal"))
        }
        try FileManager.default.createDirectory(
            atPath: folder.file("control.db-wal"), withIntermediateDirectories: false)
        withExtendedLifetime(first) {
            let error = #expect(throws: ControlError.self) { _ = try ControlDatabase(path: folder.file("control.db")) }
            #expect(error?.cause is StoreError && error?.advice.isEmpty == false)
        }
    }

    @Test("that is opened twice in a process keeps the first one's locks")
    func twice() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/control.db"
        let first = try ControlDatabase(path: path)
        let second = try ControlDatabase(path: path)
        try second.close()
        // What the kernel knows of locks on the file; SQLite's shared lock is at one of 510 bytes from 0x40000002 on.
        let inode = try #require(
            try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? NSNumber)
        let locks = try String(contentsOfFile: "/proc/locks", encoding: .utf8).split(separator: "\n")
        #expect(locks.contains { $0.contains("POSIX") && $0.contains(":\(inode) ") && $0.contains(" READ ") })
        try first.close()
    }
}
