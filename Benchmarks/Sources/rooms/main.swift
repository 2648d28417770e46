// Rooms of 10, 100 and 10,000 members, each with a connection of its own: deliveries per second, server CPU, latency.

import BenchmarkHarness
import Foundation
import PeerHarness

if let role = Role.current {
    guard role.arguments.count == 2, let size = Int(role.arguments[1]) else {
        throw ChildProcess.Failure("the server takes a folder and a size")
    }
    try await Room.serve(role.arguments[0], size: size)
    exit(0)
}

let options = Options(extra: ["--smallest": 10, "--largest": 10_000, "--load": 0.3], rounds: 3)
var report = Report("rooms")
for size in [10, 100, Int(options["--largest"])] where Double(size) >= options["--smallest"] {
    for (key, value) in try await measure(size, options) { report.add("\(key)_\(size)", value) }
}
report.finish()

/// Everything about one room: its server is a process of its own on one core, the members are in this one on the others.
func measure(_ size: Int, _ options: Options) async throws -> [(String, Double)] {
    let folder = FileManager.default.benchmarkFolder()
    defer { try? FileManager.default.removeItem(at: folder) }
    let server = try ChildProcess(role: "server", [folder.path, "\(size)"], core: 0)
    defer { server.end() }
    guard let port = Int(try server.line()) else { throw ChildProcess.Failure("the server said no port") }
    let clock = ContinuousClock()
    let start = clock.now
    let room = try await Room(folder: folder.path, port: port, size: size)
    print("\(size) members: connected in \((clock.now - start).inSeconds.readable) s")

    // So many messages are under way to somebody at any time.
    let window = size > 1_000 ? 4 : 64
    var rates: [Double] = []
    var costs: [Double] = []
    for round in 0...options.rounds {
        let before = server.cpuTime
        let (deliveries, time) = try await room.flood(for: options.roundTime, window: window)
        guard round > 0 else { continue }
        rates.append(Double(deliveries) / time.inSeconds)
        costs.append((server.cpuTime - before) / Double(deliveries) * 1e6)
    }
    let rate = Rates(rounds: rates)
    let perSecond = max(1, rate.median * options["--load"] / Double(size))
    let before = server.cpuTime
    let times = try await room.paced(perSecond: perSecond, for: max(.seconds(5), options.roundTime * 5))
    let paced = (server.cpuTime - before) / Double(times.count) * 1e6
    print(
        "\(size) members: \(rate.median.readable) deliveries/s ±\((rate.spread * 50).readable) % with \(window) messages under way, "
            + "\(costs.median.readable) µs of server CPU each; at \(perSecond.readable) messages/s "
            + "p50 \(times.milliseconds(percentile: 50).readable) ms, p99 \(times.milliseconds(percentile: 99).readable) ms, "
            + "\(paced.readable) µs")
    await room.end()
    return [
        ("deliveries", rate.median), ("cpu_us", costs.median), ("paced_rate", perSecond), ("paced_cpu_us", paced),
        ("p50_ms", times.milliseconds(percentile: 50)), ("p99_ms", times.milliseconds(percentile: 99)),
    ]
}
