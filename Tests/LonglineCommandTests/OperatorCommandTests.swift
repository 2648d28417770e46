import Foundation
import LonglineTestKit
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite("Commands of an operator", .timeLimit(.minutes(2)))
struct OperatorCommandTests {
    /// Two devices of ann and one of bob that listen.
    private func withListeners(
        _ body: (_ data: [String], _ place: [String], _ listeners: [String: ToolProcess]) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        let data = ["--data", "\(folder.path)/data"]
        try await withServer(folder) { place in
            var listeners: [String: ToolProcess] = [:]
            for (user, device) in [("ann", "phone"), ("ann", "tablet"), ("bob", "phone")] {
                let listener = try ToolProcess(
                    ["listen", "--states"] + place + (try await token(folder, user, device)))
                #expect(await listener.line(with: "* connected") != nil, "\(listener.output)")
                listeners["\(user) \(device)"] = listener
            }
            try await body(data, place, listeners)
            for listener in listeners.values {
                listener.signal(SIGTERM)
                _ = await listener.status()
            }
        }
    }

    @Test("An operator sees who is connected, and ends sessions of a device or a user")
    func sessions() async throws {
        try await withListeners { data, _, listeners in
            let listed = try await ToolProcess.run(["sessions", "--user", "ann"] + data)
            let lines = listed.output.split(separator: "\n")
            #expect(listed.status == 0 && lines.count == 2, "\(listed.output)")
            #expect(lines.first?.starts(with: /phone  unknown  quic  127\.0\.0\.1:\d+  since \d{4}-/) == true)
            let json = try await ToolProcess.run(["sessions", "list", "--user", "bob", "--json"] + data)
            let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any]
            #expect(object?["device"] as? String == "phone" && object?["session"] is String, "\(json.output)")

            let ended = try await ToolProcess.run(
                ["sessions", "end", "--user", "ann", "--device", "phone", "--code", "5000", "--reason", "go home"]
                    + data)
            #expect(ended.status == 0 && ended.output == "ended 1 session of ann", "\(ended.output)")
            let phone = try #require(listeners["ann phone"])
            #expect(await phone.line(with: "go home") != nil, "\(phone.output)")
            #expect(await phone.status() != 0)
            let left = try await ToolProcess.run(["sessions", "--user", "ann"] + data)
            #expect(left.output.hasPrefix("tablet") && !left.output.contains("\n"), "\(left.output)")
            let nobody = try await ToolProcess.run(["sessions", "--user", "carol"] + data)
            #expect(nobody.status == 0 && nobody.output == "* carol is not connected", "\(nobody.output)")

            for (options, says) in [
                (["--code", "999"], "1000 to 5999"), (["--reason", "a\nb"], "control characters"),
                (["--tenant", "acne"], "acne"), (["--device", "a b"], "--device"),
            ] {
                let refused = try await ToolProcess.run(["sessions", "end", "--user", "ann"] + data + options)
                #expect(refused.status != 0 && refused.output.contains(says), "\(refused.output)")
            }
        }
    }

    @Test("A drain moves everybody away and lets nobody in, and the status tells")
    func drain() async throws {
        try await withListeners { data, place, _ in
            let before = try await ToolProcess.run(["status"] + data)
            #expect(before.status == 0 && before.output.contains("sessions     3"), "\(before.output)")
            #expect(before.output.contains(place[1]) && !before.output.contains("draining"), "\(before.output)")
            for (options, says) in [(["--rate", "0"], "--rate"), (["--to", "nowhere"], "--to")] {
                let refused = try await ToolProcess.run(["drain"] + data + options)
                #expect(refused.status == 64 && refused.output.contains(says), "\(refused.output)")
            }
            let drained = try await ToolProcess.run(["drain", "--wait", "--rate", "1000"] + data)
            #expect(drained.status == 0 && drained.output.hasSuffix("drained"), "\(drained.output)")
            let after = try await ToolProcess.run(["status", "--json"] + data)
            let object = try JSONSerialization.jsonObject(with: Data(after.output.utf8)) as? [String: Any]
            #expect(object?["drainRate"] as? Int == 1_000 && object?["sessions"] as? Int == 0, "\(after.output)")
        }
    }

    @Test("Where no server runs each of them says so")
    func nobody() async throws {
        let folder = try TemporaryFolder()
        for command in [["status"], ["sessions", "--user", "ann"], ["sessions", "end", "--user", "ann"], ["drain"]] {
            let said = try await ToolProcess.run(command + ["--data", folder.file("absent")])
            #expect(said.status == 1 && said.output.contains("no server answers"), "\(said.output)")
            #expect(!FileManager.default.fileExists(atPath: folder.file("absent")))
        }
    }
}
