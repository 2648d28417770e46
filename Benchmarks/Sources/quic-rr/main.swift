// Requests and replies of 100 bytes: one at a time, 100 on one connection, 8 on each of 64, and each on a stream of its own.

import BenchmarkHarness
import Foundation
import PeerHarness

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

var options = Options(rounds: 3)

/// One measurement: rate, times in microseconds, CPU of the server for each request in microseconds.
struct Result {
    var rate: Double
    var median: Double
    var p99: Double
    var serverCost: Double
}

func run(_ api: API, _ load: Load) throws -> Result {
    let server = try ChildProcess(role: "server", [api.rawValue], core: 0)
    defer { server.end() }
    let port = try server.line()
    // Without what starting took.
    let before = server.cpuTime
    let client = try ChildProcess(role: "client", [api.rawValue, port] + load.arguments, core: 1)
    let numbers = try client.line().split(separator: " ").compactMap { Double($0) }
    guard numbers.count == 3 else { throw ChildProcess.Failure("the client reported \(numbers)") }
    let cost = server.cpuTime - before
    try client.wait()
    // The server's time includes the warm-up of 300 ms, which is answered at the same rate, and within it the handshakes: with
    // 64 connections some 1.5 % of a second's CPU.
    let answered = numbers[0] * (load.seconds + 0.3) / load.seconds
    return Result(
        rate: numbers[0] / load.seconds, median: numbers[1], p99: numbers[2], serverCost: cost / answered * 1e6)
}

let seconds = max(options.roundTime.inSeconds, 1)
let loads: [(name: String, load: Load)] = [
    ("depth1", Load(connections: 1, streams: 1, seconds: seconds)),
    ("depth1_new_stream", Load(connections: 1, streams: 1, opensStreams: true, seconds: seconds)),
    ("depth100", Load(connections: 1, streams: 100, seconds: seconds)),
    ("depth100_new_stream", Load(connections: 1, streams: 100, opensStreams: true, seconds: seconds)),
    ("64x8", Load(connections: 64, streams: 8, seconds: seconds)),
]
let apis: [API] = [.loop, .loopTasks, .tasks]

var report = Report("quic-rr")
for (name, load) in loads {
    // In turns, so that the machine's moods hit all three.
    var results: [API: [Result]] = [:]
    for _ in 0..<options.rounds {
        for api in apis { results[api, default: []].append(try run(api, load)) }
    }
    for api in apis {
        guard let all = results[api] else { continue }
        let (rate, median, p99) = (all.map(\.rate).median, all.map(\.median).median, all.map(\.p99).median)
        let cost = all.map(\.serverCost).median
        let label = "\(name) \(api.rawValue)".padding(toLength: 32, withPad: " ", startingAt: 0)
        print(
            "\(label) \(rate.readable)/s  p50 \(median.readable) µs  p99 \(p99.readable) µs  server \(cost.readable) µs"
        )
        report.add("\(name)_\(api.rawValue)_per_second", rate)
        report.add("\(name)_\(api.rawValue)_server_us", cost)
        if load.connections * load.streams == 1 {
            report.add("\(name)_\(api.rawValue)_p50_us", median)
            report.add("\(name)_\(api.rawValue)_p99_us", p99)
        }
    }
    if let loop = results[.loop], name == "depth1" {
        for api in [API.loopTasks, .tasks] {
            guard let tasks = results[api] else { continue }
            // Above 1: how many times longer an exchange takes through the async API.
            report.add("async_cost_\(api.rawValue)", zip(tasks, loop).map { $0.median / $1.median }.median)
        }
    }
}
report.finish()
