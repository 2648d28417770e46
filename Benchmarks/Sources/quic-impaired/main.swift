// Downloads on a link of 100 Mbit/s and 50 ms round trip with 0, 1 and 3 % loss, for each congestion controller, in virtual time.

import BenchmarkHarness
import Foundation
import QUICEngine

let options = Options(extra: ["--mebibytes": 20], rounds: 5)
let size = Int(options["--mebibytes"]) << 20
let certificate = try DevelopmentCertificate.generate(
    names: ["localhost"], now: UInt64(Date().timeIntervalSince1970))
let controls: [(name: String, control: TransportSettings.CongestionControl)] = [("cubic", .cubic), ("bbr", .bbr)]

var report = Report("quic-impaired")
for (label, streams) in [("bulk", 1), ("parallel20", 20)] {
    for loss in [0, 1, 3] {
        for (name, control) in controls {
            let rates = try (0..<options.rounds).map { round in
                let download = try Download(
                    control, streams: streams, bytes: size, loss: Double(loss) / 100, seed: UInt64(1 + round * 16),
                    certificate: certificate)
                return Double(size) * 8 / (try download.run()) / 1e6
            }
            print("\(label), \(loss) % loss, \(name): \(rates.median.readable) Mbit/s of 100")
            report.add("\(label)_loss\(loss)_\(name)_mbit", rates.median)
        }
    }
}
report.finish()
