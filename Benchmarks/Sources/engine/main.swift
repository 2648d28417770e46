// The QUIC engine without sockets: handshakes, a bulk transfer and small messages between two endpoints in one thread.

import BenchmarkHarness
import QUICEngine

let options = Options()
let certificate = try DevelopmentCertificate.generate(names: ["localhost"], validDays: 20_000, now: 1_000_000_000)
let tls = try TLSServerContext(credentials: certificate.credentials, applicationProtocols: ["benchmark"])

let handshakes = Contender("full handshakes") {
    let pair = try EndpointPair(tls: tls, certificate: certificate)
    for _ in 0..<8 { try pair.connect().close() }
    return 8
}

let bulkPair = try EndpointPair(tls: tls, certificate: certificate).connect()
let bulkStream = try bulkPair.openStream()
let bulk = Contender("bytes of one stream") {
    try bulkPair.send(bytes: 1 << 20, on: bulkStream, piece: 64 << 10)
}

let smallPair = try EndpointPair(tls: tls, certificate: certificate).connect()
let smallStream = try smallPair.openStream()
let small = Contender("messages of 200 bytes, each in a packet of its own") {
    for _ in 0..<64 { _ = try smallPair.send(bytes: 200, on: smallStream, piece: 200) }
    return 64
}

let results = try measure([handshakes, bulk, small], options: options)
var report = Report("engine")
report.add("handshakes_per_second", results[0].median)
report.add("mebibytes_per_second", results[1].median / 1_048_576)
report.add("messages_per_second", results[2].median)
report.finish()
