// Handshakes per second, full, resumed and with 0-RTT, and the server's CPU for each, beside gtlsserver with the same client.

import BenchmarkHarness
import Foundation
import PeerHarness
import QUICEngine

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

var options = Options(rounds: 3)
let seconds = max(options.roundTime.inSeconds, 1)

/// One measurement: handshakes of a kind a second, CPU of the server for each in microseconds, and the share of those that failed
/// or turned out to be of another kind. The server has worked for them as well.
struct Result {
    var rate: Double
    var cost: Double
    var others: Double
}

func measure(_ kind: Kind, server: ChildProcess, port: String, alpn: String) throws -> Result {
    let client = try ChildProcess(role: "client", [kind.rawValue, port, alpn, "\(seconds)"], core: 1)
    _ = try client.line()
    let before = server.cpuTime
    client.send("go")
    let numbers = try client.line().split(separator: " ").compactMap { Double($0) }
    let cost = server.cpuTime - before
    guard numbers.count == 2, numbers[0] + numbers[1] > 0 else {
        throw ChildProcess.Failure("\(kind.rawValue) handshakes: the client reported \(numbers)")
    }
    try client.wait()
    let all = numbers[0] + numbers[1]
    return Result(rate: numbers[0] / seconds, cost: cost / all * 1e6, others: numbers[1] / all)
}

let certificate = try DevelopmentCertificate.generate(
    names: ["localhost"], now: UInt64(Date().timeIntervalSince1970))
let server = try ChildProcess(role: "server", core: 0)
let port = try server.line()
let pair = try NgtcpPair(
    certificatePEM: certificate.certificatePEM, privateKeyPEM: certificate.privateKeyPEM, serverCore: 0, clientCore: 1)
if pair == nil { print("gtlsserver isn't installed (ngtcp2-server): no comparison") }

var report = Report("quic-handshake")
for kind in Kind.allCases {
    var ours: [Result] = []
    var peers: [Result] = []
    for round in 0...options.rounds {
        let own = try measure(kind, server: server, port: port, alpn: LoopServer.applicationProtocol)
        let peer = try pair.map { try measure(kind, server: $0.server, port: "\($0.port)", alpn: "h3") }
        guard round > 0 else { continue }
        ours.append(own)
        if let peer { peers.append(peer) }
    }
    let (rate, cost) = (ours.map(\.rate).median, ours.map(\.cost).median)
    report.add("\(kind.rawValue)_per_second", rate)
    report.add("\(kind.rawValue)_server_us", cost)
    var line = "\(kind.rawValue)  \(rate.readable)/s, server \(cost.readable) µs"
    if !peers.isEmpty {
        report.add("\(kind.rawValue)_peer_server_us", peers.map(\.cost).median)
        report.add("\(kind.rawValue)_ratio", zip(ours, peers).map { $1.cost / $0.cost }.median)
        line += "   gtlsserver  \(peers.map(\.rate).median.readable)/s, \(peers.map(\.cost).median.readable) µs"
    }
    print(line)
    for (name, results) in [("ours", ours), ("gtlsserver", peers)] {
        guard let most = results.map(\.others).max(), most > 0 else { continue }
        print("  \(name): up to \((most * 100).readable) % of the handshakes failed, or were of another kind")
    }
}
server.end()
pair?.end()
report.finish()
