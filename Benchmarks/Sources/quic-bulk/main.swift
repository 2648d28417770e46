// A download on one connection on loopback, beside Debian's gtlsserver and gtlsclient: --mebibytes N, 4096 for the full one.

import BenchmarkHarness
import Foundation
import PeerHarness
import QUICEngine

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

var options = Options(extra: ["--mebibytes": 512], rounds: 5)
let size = Int(options["--mebibytes"]) << 20

/// What one download took: wall clock and the CPU time of both sides, in seconds.
struct Cost {
    var time: Double
    var server: Double
    var client: Double
    /// Bits a second that a core could carry if the busier side had it to itself.
    func ceiling(_ bytes: Int) -> Double { Double(bytes) * 8 / max(server, client) }
}

func measure(_ server: ChildProcess, _ download: () throws -> Void) throws -> Cost {
    let clock = ContinuousClock()
    let (serverBefore, clientBefore, start) = (server.cpuTime, ChildProcess.endedChildrenCPUTime, clock.now)
    try download()
    return Cost(
        time: (clock.now - start).inSeconds, server: server.cpuTime - serverBefore,
        client: ChildProcess.endedChildrenCPUTime - clientBefore)
}

let certificate = try DevelopmentCertificate.generate(
    names: ["localhost"], now: UInt64(Date().timeIntervalSince1970))
let server = try ChildProcess(role: "server", core: 0)
let port = try server.line()
let pair = try NgtcpPair(
    certificatePEM: certificate.certificatePEM, privateKeyPEM: certificate.privateKeyPEM, serverCore: 0, clientCore: 1)
if pair == nil { print("gtlsserver and gtlsclient aren't installed (ngtcp2-server, ngtcp2-client): no comparison") }

var ours: [Cost] = []
var peers: [Cost] = []
for round in 0...options.rounds {
    let own = try measure(server) {
        try ChildProcess(role: "client", [port, "\(size)"], core: 1).wait()
    }
    var line =
        "ours  \((Double(size) * 8 / own.time / 1e9).readable) Gbit/s, CPU s \(own.server.readable) + \(own.client.readable)"
    if round > 0 { ours.append(own) }
    if let pair {
        let peer = try measure(pair.server) { try pair.runClient(paths: ["\(size)"]) }
        line +=
            "   pair  \((Double(size) * 8 / peer.time / 1e9).readable) Gbit/s, CPU s \(peer.server.readable) + \(peer.client.readable)"
        if round > 0 { peers.append(peer) }
    }
    print(line)
}
server.end()
pair?.end()

var report = Report("quic-bulk")
let gibibytes = Double(size) / 1_073_741_824
report.add("gbit_per_second", ours.map { Double(size) * 8 / $0.time / 1e9 }.median)
report.add("server_cpu_s_per_gib", ours.map { $0.server / gibibytes }.median)
report.add("client_cpu_s_per_gib", ours.map { $0.client / gibibytes }.median)
if !peers.isEmpty {
    report.add("peer_gbit_per_second", peers.map { Double(size) * 8 / $0.time / 1e9 }.median)
    report.add("peer_server_cpu_s_per_gib", peers.map { $0.server / gibibytes }.median)
    report.add("peer_client_cpu_s_per_gib", peers.map { $0.client / gibibytes }.median)
    report.add("cpu_ratio", zip(ours, peers).map { $0.ceiling(size) / $1.ceiling(size) }.median)
    report.add("ratio", zip(ours, peers).map { $1.time / $0.time }.median)
}
report.finish()
