// A device comes back to 100,000 waiting messages of 128 bytes: messages a second, time to the first, CPU, the server's memory.

import BenchmarkHarness
import Foundation
import LonglineWire
import PeerHarness
import SessionHarness

let room = try RoomID("benchmark")

// The server is one process, the devices another.
if let role = Role.current {
    let arguments = role.arguments
    switch role.name {
    case "server": try await SessionServer.run(arguments[0])
    default:
        guard arguments.count == 3, let port = Int(arguments[1]), let devices = Int(arguments[2]) else {
            throw ChildProcess.Failure("the devices take a folder, a port and their number")
        }
        try await serveDevices(arguments[0], port: port, count: devices)
    }
    exit(0)
}

/// Does what the parent's lines say with devices that joined the room before.
func serveDevices(_ folder: String, port: Int, count: Int) async throws {
    let sender = try Device(0, folder: folder, port: port)
    try await sender.join(room)
    var devices: [Device] = []
    for number in 1...count {
        let device = try Device(number, folder: folder, port: port)
        try await device.join(room)
        await device.leave()
        devices.append(device)
    }
    Role.report("joined")
    while let words = readLine()?.split(separator: " "), words.count == 2, let number = Int(words[1]) {
        if words[0] == "publish" {
            try await sender.publish(number, to: room)
            await sender.leave()
            Role.report("published")
        } else {
            let device = devices.removeFirst()
            let times = try await device.comeBack(to: number)
            Role.report("\(times.first.inSeconds) \(times.all.inSeconds)")
            await device.leave()
        }
    }
}

let options = Options(extra: ["--messages": 100_000], rounds: 5)
let messages = Int(options["--messages"])
let folder = FileManager.default.benchmarkFolder()
defer { try? FileManager.default.removeItem(at: folder) }
let server = try ChildProcess(role: "server", [folder.path], core: 0)
defer { server.end() }
let devices = try ChildProcess(role: "devices", [folder.path, try server.line(), "\(options.rounds + 1)"], core: 1)
defer { devices.end() }
_ = try devices.line()
devices.send("publish \(messages)")
_ = try devices.line()

var (rates, firsts, serverCosts, deviceCosts): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
var growth = 0.0
// One device after the other comes back to the same messages. The first one warms up.
for round in 0...options.rounds {
    ChildProcess.pause(seconds: 0.5)
    let before = (server: server.cpuTime, devices: devices.cpuTime, resident: try ServerMemory.resident(of: server))
    devices.send("come \(messages)")
    let peak = try ServerMemory.peak(of: server, during: { try devices.line() })
    let times = peak.value.split(separator: " ").compactMap { Double($0) }
    guard times.count == 2 else { throw ChildProcess.Failure("the device said \(peak.value)") }
    guard round > 0 else { continue }
    firsts.append(times[0] * 1e3)
    rates.append(Double(messages) / times[1])
    serverCosts.append((server.cpuTime - before.server) / Double(messages) * 1e6)
    deviceCosts.append((devices.cpuTime - before.devices) / Double(messages) * 1e6)
    growth = max(growth, peak.resident - before.resident)
}
let rate = Rates(rounds: rates)
print(
    "\(messages) messages: \(rate.median.readable)/s ±\((rate.spread * 50).readable) %, the first after "
        + "\(firsts.median.readable) ms; CPU of the server \(serverCosts.median.readable) µs each, of the device "
        + "\(deviceCosts.median.readable) µs; the server's memory grew by up to \((growth / 1024 / 1024).readable) MiB")
var report = Report("catch-up")
report.add("messages", messages)
report.add("rate", rate.median)
report.add("first_ms", firsts.median)
report.add("server_us", serverCosts.median)
report.add("device_us", deviceCosts.median)
report.add("server_growth_mib", growth / 1024 / 1024)
report.finish()
