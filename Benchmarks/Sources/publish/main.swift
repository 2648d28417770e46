// Publish to acknowledged and to delivered, 1:1, 128 bytes: SQLite and two clients over QUIC on loopback, beside mosquitto.

import BenchmarkHarness

// `--alone 1` is for profiles: no broker runs beside.
let options = Options(extra: ["--rate": 5_000, "--alone": 0])
let window = 256
let pacedRate = Int(options["--rate"])

/// One kind of server and of load.
struct Load {
    let name: String
    let service: any MessageService
    let window: Int
    var acknowledged: [Double] = []
    var delivered: [Double] = []

    var rate: Rates { Rates(rounds: acknowledged) }
}

let room = try await Site()
let direct = try await Site(to: .direct)
let single = try await Site(groupCommit: false)
var brokers: [(kind: Mosquitto.Kind, service: Mosquitto)] = []
let kinds = options["--alone"] == 0 ? Mosquitto.Kind.allCases : []
for kind in kinds {
    if let broker = try await Mosquitto.start(kind) { brokers.append((kind, broker)) }
}
if brokers.isEmpty, !kinds.isEmpty { print("mosquitto isn't installed: no comparison") }
var loads = [
    Load(name: "room, \(window) in flight", service: room, window: window),
    Load(name: "direct, \(window) in flight", service: direct, window: window),
    Load(name: "room, \(window) in flight, a commit each", service: single, window: window),
    Load(name: "room, 1 in flight", service: room, window: 1),
]
for (kind, broker) in brokers {
    loads.append(Load(name: "\(kind.title), \(window) in flight", service: broker, window: window))
    loads.append(Load(name: "\(kind.title), 1 in flight", service: broker, window: 1))
}
// In turns, as measure(_:options:) does; the first turn warms up.
for turn in 0...options.rounds {
    for index in loads.indices {
        let rates = try await loads[index].service.round(options.roundTime, window: loads[index].window)
        guard turn > 0 else { continue }
        loads[index].acknowledged.append(rates.acknowledged)
        loads[index].delivered.append(rates.delivered)
    }
}
for load in loads {
    let (acknowledged, delivered) = (load.rate, Rates(rounds: load.delivered))
    print(
        "\(load.name): \(acknowledged.median.readable)/s acknowledged ±\((acknowledged.spread * 50).readable) %,"
            + " \(delivered.median.readable)/s delivered")
}

var report = Report("publish")
report.add("rate", loads[0].rate.median)
report.add("delivered_rate", Rates(rounds: loads[0].delivered).median)
report.add("direct_rate", loads[1].rate.median)
report.add("single_commit_rate", loads[2].rate.median)
report.add("one_in_flight_rate", loads[3].rate.median)
report.add("commit_ratio", ratio(loads[0].rate, over: loads[2].rate))
report.add("paced_rate", pacedRate)

/// Latencies at a fixed rate: to the acknowledgement and to delivery.
func percentiles(_ service: any MessageService, _ name: String) -> [(String, Double)] {
    let times = service.tally.times
    precondition(times.acknowledged.count == times.delivered.count)
    return [("", times.acknowledged), ("delivered_", times.delivered)].flatMap { kind, latencies in
        [("p50", 50.0), ("p99", 99.0), ("p99_9", 99.9)].map { label, percentile in
            ("\(name)\(kind)\(label)_ms", latencies.milliseconds(percentile: percentile))
        }
    }
}

var timed: [(name: String, service: any MessageService)] = [("", room), ("direct_", direct)]
for (kind, broker) in brokers { timed.append((name: kind.prefix + "peer_", service: broker)) }
// In turns as well. The percentiles are of the times of four turns together.
for turn in 0...4 {
    for (_, service) in timed {
        try await service.paced(
            perSecond: pacedRate, for: max(.seconds(1), options.roundTime * 2.5), noting: turn > 0)
    }
}
for (name, service) in timed {
    for (key, value) in percentiles(service, name) { report.add(key, value) }
}
for (index, (kind, _)) in brokers.enumerated() {
    let (many, one) = (loads[4 + 2 * index].rate, loads[5 + 2 * index].rate)
    report.add("\(kind.prefix)peer_rate", many.median)
    report.add("\(kind.prefix)peer_one_in_flight_rate", one.median)
    report.add("\(kind.prefix)ratio", ratio(loads[0].rate, over: many))
    report.add("\(kind.prefix)direct_ratio", ratio(loads[1].rate, over: many))
}
report.finish()
for service in [room, direct, single] { await service.end() }
for (_, broker) in brokers { await broker.end() }
