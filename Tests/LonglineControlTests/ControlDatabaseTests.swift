import Dispatch
import Foundation
import LonglineServer
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
