// HTTP/3 beside Debian's gtlsserver, with the same client: requests for 100 B and 1 KB, and a download: --mebibytes N, 1024.

import BenchmarkHarness
import Foundation
import PeerHarness
import QUICEngine

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

var options = Options(extra: ["--mebibytes": 1024], rounds: 7)
let size = Int(options["--mebibytes"]) << 20
let seconds = max(options.roundTime.inSeconds, 1)

/// One measurement: requests a second, times in microseconds, CPU of the server for each request in microseconds.
struct Result {
    var rate: Double
    var median: Double
    var p99: Double
    var serverCost: Double
}

func run(_ load: Load, port: String, server: ChildProcess) throws -> Result {
    let before = server.cpuTime
    let client = try ChildProcess(role: "requests", [port] + load.arguments, core: 1)
    let numbers = try client.line().split(separator: " ").compactMap { Double($0) }
    guard numbers.count == 3 else { throw ChildProcess.Failure("the client reported \(numbers)") }
    let cost = server.cpuTime - before
    try client.wait()
    let answered = numbers[0] * (load.seconds + Load.warmUp) / load.seconds
    return Result(
        rate: numbers[0] / load.seconds, median: numbers[1], p99: numbers[2], serverCost: cost / answered * 1e6)
}

/// Seconds of one download, and CPU seconds of the server.
func download(port: String, server: ChildProcess) throws -> (time: Double, server: Double) {
    let before = server.cpuTime
    let client = try ChildProcess(role: "download", [port, "\(size)"], core: 1)
    guard let time = Double(try client.line()) else { throw ChildProcess.Failure("the client reported no time") }
    let cost = server.cpuTime - before
    try client.wait()
    return (time, cost)
}

let loads: [(name: String, load: Load)] = [100, 1000].flatMap { bytes in
    [
        ("\(bytes)b_depth1", Load(connections: 1, streams: 1, bytes: bytes, seconds: seconds)),
        ("\(bytes)b_depth50", Load(connections: 1, streams: 50, bytes: bytes, seconds: seconds)),
        ("\(bytes)b_64x8", Load(connections: 64, streams: 8, bytes: bytes, seconds: seconds)),
    ]
}

let certificate = try DevelopmentCertificate.generate(
    names: ["localhost"], now: UInt64(Date().timeIntervalSince1970))
let server = try ChildProcess(role: "server", core: 0)
let port = try server.line()
let pair = try NgtcpPair(
    certificatePEM: certificate.certificatePEM, privateKeyPEM: certificate.privateKeyPEM, serverCore: 0, clientCore: 1)
if pair == nil { print("gtlsserver isn't installed (ngtcp2-server, ngtcp2-client): no comparison") }

var report = Report("h3")
for (name, load) in loads {
    var own: [Result] = []
    var peers: [Result] = []
    // In turns, so that the machine's moods hit both.
    for _ in 0..<options.rounds {
        own.append(try run(load, port: port, server: server))
        if let pair { peers.append(try run(load, port: "\(pair.port)", server: pair.server)) }
    }
    func show(_ who: String, _ all: [Result]) {
        let label = "\(name) \(who)".padding(toLength: 24, withPad: " ", startingAt: 0)
        print(
            "\(label) \(all.map(\.rate).median.readable)/s  p50 \(all.map(\.median).median.readable) µs  p99 "
                + "\(all.map(\.p99).median.readable) µs  server \(all.map(\.serverCost).median.readable) µs")
    }
    show("ours", own)
    report.add("\(name)_per_second", own.map(\.rate).median)
    report.add("\(name)_server_us", own.map(\.serverCost).median)
    guard !peers.isEmpty else { continue }
    show("gtlsserver", peers)
    report.add("\(name)_peer_per_second", peers.map(\.rate).median)
    report.add("\(name)_ratio", zip(own, peers).map { $0.rate / $1.rate }.median)
    report.add("\(name)_cpu_ratio", zip(own, peers).map { $1.serverCost / $0.serverCost }.median)
}

var own: [(time: Double, server: Double)] = []
var peers: [(time: Double, server: Double)] = []
for round in 0...options.rounds {
    let ours = try download(port: port, server: server)
    let theirs = try pair.map { try download(port: "\($0.port)", server: $0.server) }
    guard round > 0 else { continue }
    own.append(ours)
    if let theirs { peers.append(theirs) }
}
server.end()
pair?.end()
let gbit = { (time: Double) in Double(size) * 8 / time / 1e9 }
print("download ours \(own.map { gbit($0.time) }.median.readable) Gbit/s")
report.add("download_gbit_per_second", own.map { gbit($0.time) }.median)
report.add("download_server_cpu_s", own.map(\.server).median)
if !peers.isEmpty {
    print("download gtlsserver \(peers.map { gbit($0.time) }.median.readable) Gbit/s")
    report.add("download_peer_gbit_per_second", peers.map { gbit($0.time) }.median)
    report.add("download_peer_server_cpu_s", peers.map(\.server).median)
    report.add("download_ratio", zip(own, peers).map { $1.time / $0.time }.median)
}
report.finish()
