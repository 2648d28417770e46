// The frame codec: encode and decode of a chat's frames, beside JSON with the same fields and a bare copy; and what it takes to
// compress a catch-up.

import BenchmarkHarness
import Foundation
import LonglineWire
import NIOCore

/// What a message of 200 bytes costs on its way: published, acknowledged, delivered, confirmed.
func makeFrames() throws -> [Frame] {
    let payload = ByteBuffer(repeating: 0x61, count: 200)
    return (1...16).flatMap { (id: UInt64) -> [Frame] in
        let publish = Publish(
            id: id, tag: 0x0123_4567_89ab_cdef &* id, after: id - 1, recipient: nil, timeToLive: 0, payload: payload)
        let entry = Entry(
            offset: 1_000 + id * 3, previous: 997 + id * 3, kind: .message, sender: alice, device: phone,
            producer: ProducerID(high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210), publishID: id,
            recipient: nil,
            origin: nil, time: 1_767_225_600_000 + id, expiry: 0, payload: payload)
        return [
            .publish(publish),
            .deliver(Deliver(entry: entry, redelivered: false)),
            .acknowledge(Acknowledge(offset: 1_000 + id * 3)),
        ]
    }
}

/// The same content for Foundation's JSON.
enum JSONFrame: Codable {
    case publish(id: UInt64, tag: UInt64, after: UInt64, payload: Data)
    case deliver(
        offset: UInt64, previous: UInt64, sender: String, device: String, producer: String, publishID: UInt64,
        time: UInt64,
        payload: Data)
    case acknowledge(offset: UInt64)

    init?(_ frame: Frame) {
        switch frame {
        case .publish(let publish):
            self = .publish(
                id: publish.id, tag: publish.tag, after: publish.after, payload: Data(publish.payload.readableBytesView)
            )
        case .deliver(let deliver):
            let entry = deliver.entry
            self = .deliver(
                offset: entry.offset, previous: entry.previous, sender: entry.sender.description,
                device: entry.device.description, producer: entry.producer.description, publishID: entry.publishID,
                time: entry.time, payload: Data(entry.payload.readableBytesView))
        case .acknowledge(let acknowledge): self = .acknowledge(offset: acknowledge.offset)
        default: return nil
        }
    }
}

let alice = try UserID("alice")
let phone = try DeviceID("phone")
let options = Options()
let frames = try makeFrames()
let jsonFrames = frames.compactMap(JSONFrame.init)
precondition(jsonFrames.count == frames.count)

var encoded = ByteBuffer()
for frame in frames { try FrameEncoder.encode(frame, into: &encoded) }
let encodedBytes = Array(encoded.readableBytesView)
let jsonEncoder = JSONEncoder()
let jsonDecoder = JSONDecoder()
let jsonEncoded = try jsonFrames.map { try jsonEncoder.encode($0) }
print("\(frames.count) frames: \(encodedBytes.count) bytes, as JSON \(jsonEncoded.map(\.count).reduce(0, +))")

let catchUp = try CatchUp(messages: 600)
print("\(catchUp.frames) messages: \(catchUp.plain) bytes, in batches \(catchUp.compressed)")

var output = ByteBuffer()
let results = try measure(
    [
        Contender("encode") {
            output.clear()
            for frame in frames { try FrameEncoder.encode(frame, into: &output) }
            consume(output.readableBytes)
            return frames.count
        },
        Contender("decode") {
            var decoder = FrameDecoder()
            decoder.append(encoded)
            var count = 0
            while let frame = try decoder.next() {
                consume(frame)
                count += 1
            }
            precondition(count == frames.count)
            return count
        },
        Contender("encode JSON") {
            for frame in jsonFrames { consume(try jsonEncoder.encode(frame)) }
            return jsonFrames.count
        },
        Contender("decode JSON") {
            for data in jsonEncoded { consume(try jsonDecoder.decode(JSONFrame.self, from: data)) }
            return jsonEncoded.count
        },
        Contender("copy the bytes") {
            output.clear()
            output.writeBytes(encodedBytes)
            consume(output.readableBytes)
            return frames.count
        },
        Contender("compress") {
            for run in catchUp.runs { consume(Batch(of: run)) }
            return catchUp.frames
        },
        Contender("decompress") {
            for batch in catchUp.batches { consume(try batch.frames()) }
            return catchUp.frames
        },
    ], options: options)

/// Frames a second through one after the other.
func inSeries(_ first: Rates, _ second: Rates) -> Rates {
    Rates(rounds: zip(first.rounds, second.rounds).map { 1 / (1 / $0 + 1 / $1) })
}
let ours = inSeries(results[0], results[1])
let json = inSeries(results[2], results[3])
var report = Report("wire")
report.add("encode_per_second", results[0].median)
report.add("decode_per_second", results[1].median)
report.add("both_per_second", ours.median)
report.add("json_both_per_second", json.median)
report.add("bytes_per_frame", Double(encodedBytes.count) / Double(frames.count))
report.add("copies_per_encode", ratio(results[4], over: results[0]))
report.add("compress_per_second", results[5].median)
report.add("decompress_per_second", results[6].median)
report.add("compressed_share", Double(catchUp.compressed) / Double(catchUp.plain))
report.add("ratio", ratio(ours, over: json))
report.finish()
