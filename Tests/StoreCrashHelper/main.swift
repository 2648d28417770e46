import Foundation
import Logging
import LonglineStore
import LonglineWire
import NIOCore

// Publishes into a store until it is killed: `StoreCrashHelper FOLDER SENDERS PAYLOAD-BYTES`.
//
// Each line of its output says what was acknowledged, `user id offset`, or refused, `user id refused code`, after the fact.
let arguments = CommandLine.arguments
guard arguments.count == 4, let senders = Int(arguments[2]), let bytes = Int(arguments[3]) else {
    FileHandle.standardError.write(Data("usage: StoreCrashHelper FOLDER SENDERS PAYLOAD-BYTES\n".utf8))
    exit(64)
}

/// One line in one `write`, so that a kill leaves whole lines (a pipe takes up to 4,096 bytes at once).
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

let store = try SQLiteStore(SQLiteStoreConfiguration(directory: arguments[1]))
let tenant = try TenantID("acme")
let device = try DeviceID("phone")
let payload = ByteBuffer(repeating: UInt8(ascii: "x"), count: bytes)
await withThrowingTaskGroup { group in
    for sender in 0..<senders {
        group.addTask {
            let user = try UserID("user\(sender)")
            let recipient = try UserID("user\((sender + 1) % senders)")
            var id: PublishID = 1
            while true {
                let publish = Publish(
                    id: id, tag: id, after: id - 1, recipient: recipient, timeToLive: 0, payload: payload)
                let request = AppendRequest(
                    device: DeviceKey(tenant: tenant, user: user, device: device),
                    producer: ProducerID(high: 1, low: 1), channel: .user(user), publish: publish)
                switch await store.append([request]).first {
                case .entered(let published, _, _, _):
                    say("\(user) \(id) \(published.position.offset)")
                    id += 1
                case .refused(let refused):
                    say("\(user) \(id) refused \(refused.code.rawValue)")
                    try await Task.sleep(for: .milliseconds(50))
                case .duplicate, nil:
                    say("\(user) \(id) unexpected")
                }
            }
        }
    }
}
