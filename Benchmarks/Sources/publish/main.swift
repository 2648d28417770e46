// Publish to acknowledged and to delivered: a server with SQLite and two clients over QUIC on loopback, in one process.

import BenchmarkHarness

let options = Options()
let window = 256
let pacedRate = 1_000

/// One kind of server and of load.
struct Load {
    let name: String
    let site: Site
    let window: Int
    var acknowledged: [Double] = []
    var delivered: [Double] = []
}

let grouped = try await Site(groupCommit: true)
let single = try await Site(groupCommit: false)
var loads = [
    Load(name: "\(window) in flight", site: grouped, window: window),
    Load(name: "\(window) in flight, a commit each", site: single, window: window),
    Load(name: "1 in flight", site: grouped, window: 1),
]
// In turns, as measure(_:options:) does; the first turn warms up.
for turn in 0...options.rounds {
    for index in loads.indices {
        let rates = try await loads[index].site.round(options.roundTime, window: loads[index].window)
        guard turn > 0 else { continue }
        loads[index].acknowledged.append(rates.acknowledged)
        loads[index].delivered.append(rates.delivered)
    }
}
for load in loads {
    let (acknowledged, delivered) = (Rates(rounds: load.acknowledged), Rates(rounds: load.delivered))
    print(
        "\(load.name): \(acknowledged.median.readable)/s acknowledged ±\((acknowledged.spread * 50).readable) %,"
            + " \(delivered.median.readable)/s delivered")
}

_ = try await grouped.paced(perSecond: pacedRate, for: .seconds(1))
let times = try await grouped.paced(perSecond: pacedRate, for: max(.seconds(3), options.roundTime * 10))
precondition(times.acknowledged.count == times.delivered.count)

let ours = Rates(rounds: loads[0].acknowledged)
var report = Report("publish")
report.add("rate", ours.median)
report.add("delivered_rate", Rates(rounds: loads[0].delivered).median)
report.add("single_commit_rate", Rates(rounds: loads[1].acknowledged).median)
report.add("one_in_flight_rate", Rates(rounds: loads[2].acknowledged).median)
report.add("paced_rate", pacedRate)
report.add("p50_ms", times.acknowledged.milliseconds(percentile: 50))
report.add("p99_ms", times.acknowledged.milliseconds(percentile: 99))
report.add("delivered_p50_ms", times.delivered.milliseconds(percentile: 50))
report.add("delivered_p99_ms", times.delivered.milliseconds(percentile: 99))
report.add("ratio", ratio(ours, over: Rates(rounds: loads[1].acknowledged)))
report.finish()
await grouped.end()
await single.end()
