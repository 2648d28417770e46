// What an idle server connection holds: heap and resident memory, keep-alives, and what is left after connections close.

import BenchmarkHarness
import Foundation
import PeerHarness

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

/// A server and its crowd of clients.
struct Site {
    let server: ChildProcess
    let crowd: ChildProcess

    init() throws {
        server = try ChildProcess(role: "server", core: 0)
        crowd = try ChildProcess(role: "crowd", [try server.line()], core: 1)
    }

    func tell(_ command: String) throws {
        crowd.send(command)
        _ = try crowd.line()
    }

    /// Once nothing is under way any more.
    func memory() throws -> ServerMemory { try ServerMemory.ask(server) }

    func end() {
        crowd.end()
        server.end()
    }
}

// --at-once: how many connections make their requests at the same time. All at once, a busy machine loses packets, and what
// ngtcp2 keeps for reordering is measured, too.
var options = Options(extra: ["--connections": 5_000, "--turns": 20, "--turn-connections": 1_000, "--at-once": 50])
let count = Int(options["--connections"])
var report = Report("quic-idle")
report.add("connections", count)

func add(_ name: String, _ now: ServerMemory, over before: ServerMemory, of count: Int, to report: inout Report) {
    let heap = (now.heap - before.heap) / Double(count) / 1024
    let resident = (now.resident - before.resident) / Double(count) / 1024
    print("\(name): heap \(heap.readable) KiB, resident \(resident.readable) KiB each; \(now.count) connections")
    report.add("\(name)_heap_kib", heap)
    report.add("\(name)_rss_kib", resident)
}

// What stays when connections have gone: first, because nothing else is true where it fails.
let turns = Int(options["--turns"])
if turns > 1 {
    let site = try Site()
    var marks: [ServerMemory] = []
    // The first turn loads code and grows tables that the others use again. It isn't counted.
    for turn in 0...turns {
        try site.tell("open \(Int(options["--turn-connections"]))")
        try site.tell("close")
        let memory = try site.memory()
        marks.append(memory)
        print(
            "turn \(turn): heap \((memory.heap / 1024).readable) KiB, resident \((memory.resident / 1024).readable) KiB, "
                + "\(memory.count) connections")
    }
    site.end()
    let (early, late) = (marks[1], marks[turns])
    report.add("turns", turns)
    report.add("turns_heap_growth_percent", (late.heap / early.heap - 1) * 100)
    report.add("turns_rss_growth_percent", (late.resident / early.resident - 1) * 100)
}

let site = try Site()
// The process's own: code that is first used, tables.
try site.tell("open 20")
try site.tell("request 20 20")
try site.tell("close")
let empty = try site.memory()
try site.tell("open \(count)")
add("fresh", try site.memory(), over: empty, of: count, to: &report)
try site.tell("request 100 \(Int(options["--at-once"]))")
add("used", try site.memory(), over: empty, of: count, to: &report)
try site.tell("close")
ChildProcess.pause(seconds: 2)
add("closed", try site.memory(), over: empty, of: count, to: &report)

// Keep-alives of the clients, one from each every two seconds.
try site.tell("beat \(count)")
ChildProcess.pause(seconds: 3)
let before = site.server.cpuTime
ChildProcess.pause(seconds: 10)
let perBeat = (site.server.cpuTime - before) / (Double(count) * 5) * 1e6
print("a keep-alive costs the server \(perBeat.readable) µs")
report.add("keep_alive_server_us", perBeat)
site.end()
report.finish()
