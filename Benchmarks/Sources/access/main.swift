// GET /v1/access with one core for the server: over HTTP/3, HTTP/2 and HTTP/1.1, one request at a time and 64.

import BenchmarkHarness
import Foundation
import PeerHarness

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

var options = Options(rounds: 3)
let seconds = max(options.roundTime.inSeconds, 2)
let folder = FileManager.default.benchmarkFolder().path

/// One measurement: answers a second, times in microseconds, CPU of the server for each answer in microseconds.
struct Result {
    var rate: Double
    var median: Double
    var p99: Double
    var cost: Double
}

let server = try ChildProcess(role: "server", [folder], core: 0)
let ports = try server.line().split(separator: " ").map(String.init)
guard ports.count == 2 else { throw ChildProcess.Failure("the server said \(ports)") }

@MainActor func run(_ load: Load) throws -> Result {
    let client = try ChildProcess(role: "client", [folder] + ports + load.arguments, core: 1)
    // The handshakes are within the warm-up, whose CPU is counted.
    let before = server.cpuTime
    let numbers = try client.line().split(separator: " ").compactMap { Double($0) }
    guard numbers.count == 3 else { throw ChildProcess.Failure("the client reported \(numbers)") }
    let cost = server.cpuTime - before
    try client.wait()
    let answered = numbers[0] * (load.seconds + Load.warmUp) / load.seconds
    return Result(
        rate: numbers[0] / load.seconds, median: numbers[1], p99: numbers[2], cost: cost / answered * 1e6)
}

var report = Report("access")
for (name, connections, streams) in [("depth1", 1, 1), ("depth64", 8, 8)] {
    var results: [Load.Version: [Result]] = [:]
    // In turns, so that the machine's moods hit all.
    for _ in 0..<options.rounds {
        for version in Load.Version.allCases {
            let isPlain = version == .http1
            let load = Load(
                version: version, connections: isPlain ? connections * streams : connections,
                streams: isPlain ? 1 : streams, seconds: seconds)
            results[version, default: []].append(try run(load))
        }
    }
    for version in Load.Version.allCases {
        let all = results[version] ?? []
        let label = "\(name) \(version)".padding(toLength: 16, withPad: " ", startingAt: 0)
        print(
            "\(label) \(all.map(\.rate).median.readable)/s  p50 \(all.map(\.median).median.readable) µs  p99 "
                + "\(all.map(\.p99).median.readable) µs  server \(all.map(\.cost).median.readable) µs")
        report.add("\(name)_\(version)_per_second", all.map(\.rate).median)
        report.add("\(name)_\(version)_server_us", all.map(\.cost).median)
    }
}
server.end()
try? FileManager.default.removeItem(atPath: folder)
report.finish()
