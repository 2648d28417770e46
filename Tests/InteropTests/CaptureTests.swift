import Foundation
import LonglineTestKit
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// What our packets look like to Wireshark.
@Suite(
    "Captures read by tshark", .enabled(if: Tshark.isInstalled, "tshark is not installed: scripts/test does that"),
    .timeLimit(.minutes(1)))
struct CaptureTests {
    @Test(
        "tshark decrypts every packet of a run and finds no error: Retry, handshake, 0-RTT, migration, key updates, close",
        .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)))
    func ourClient() async throws {
        let cache = InMemorySessionCache()
        try await withClient(cache: cache) { client, loop, peer in
            let files = try CaptureFiles(in: peer.folder.url)
            let server = try loopback(port: try await peer.listen(["retry": true]))
            let early = EarlyDataWatch()
            let relay = try await Relay.open(to: server, on: loop, capture: files.capture, policy: early.policy)
            var configuration = clientConfiguration()
            configuration.keyLog = { files.keys.append($0) }
            for visit in 1...2 {
                early.isAwaited = visit == 2
                let connection = try await client.connect(relay.port, configuration, early: true, on: loop)
                try await connection.exchange()
                #expect(try await connection.handshake().earlyData == (visit == 1 ? .notAttempted : .accepted))
                let name = try await peer.accepted().name
                try await connection.sendDatagram(ByteBuffer(string: "unreliable"))
                try await connection.exchange(60_000)
                try await connection.migrate(to: loopback("127.0.0.2"))
                try await connection.exchange(60_000)
                try await connection.updateKey()
                try await connection.exchange()
                connection.close(code: 5, reason: "seen enough")
                #expect(try await peer.end(name).code == 5)
                let key = SessionCacheKey(
                    serverName: "localhost", port: relay.port, applicationProtocol: protocolName)
                #expect(cache.session(for: key)?.ticket != nil)
            }
            await relay.close()
            let report = try files.read()
            #expect(report.errors.isEmpty)
            #expect(report.undecrypted.isEmpty)
            #expect(report.types == ["0-RTT", "1-RTT", "Handshake", "Initial", "Retry"])
        }
    }

    @Test("tshark decrypts every packet between our own client and server, and finds no error")
    func bothOurs() async throws {
        let folder = try TemporaryFolder()
        let files = try CaptureFiles(in: folder.url)
        let cache = InMemorySessionCache()
        try await withOwnPair(cache: cache, keyLog: files.keys) { client, port, loop in
            let early = EarlyDataWatch()
            let relay = try await Relay.open(
                to: loopback(port: port), on: loop, capture: files.capture, policy: early.policy)
            for visit in 1...2 {
                early.isAwaited = visit == 2
                let connection = try await client.connect(relay.port, early: true, on: loop)
                try await connection.exchange(200_000)
                #expect(try await connection.handshake().earlyData == (visit == 1 ? .notAttempted : .accepted))
                try await connection.sendDatagram(ByteBuffer(string: "unreliable"))
                try await connection.rebind()
                try await connection.exchange(60_000)
                for host in ["127.0.0.2", "127.0.0.1"] {
                    try await connection.migrate(to: loopback(host))
                    try await connection.exchange(60_000)
                }
                try await connection.updateKey()
                try await connection.exchange()
                connection.close(code: 5, reason: "seen enough")
                _ = try await connection.closed()
            }
            await relay.close()
        }
        let report = try files.read()
        #expect(report.errors.isEmpty)
        #expect(report.undecrypted.isEmpty)
        #expect(report.types == ["0-RTT", "1-RTT", "Handshake", "Initial"])
        let blind = try files.read(withKeys: false)
        #expect(blind.undecrypted.count > 100, "without the keys nothing but Initial packets can be read")
    }
}

/// Holds back what a server answers until a client has sent 0-RTT: else the handshake might be faster than the application.
private final class EarlyDataWatch: Sendable {
    private let awaited = Mutex(false)

    var isAwaited: Bool {
        get { awaited.withLock { $0 } }
        set { awaited.withLock { $0 = newValue } }
    }

    @Sendable func policy(_ direction: Relay.Direction, _ number: Int, _ data: ByteBuffer) -> Relay.Fate {
        if direction == .toServer, isAwaited, Self.longTypes(data).contains(1) {
            isAwaited = false
            return .release
        }
        return direction == .toClient && isAwaited ? .hold : .pass
    }

    /// The types of a datagram's packets with long headers (RFC 9000 section 17.2).
    private static func longTypes(_ datagram: ByteBuffer) -> [UInt8] {
        var data = datagram
        var types: [UInt8] = []
        while let first = data.readInteger(as: UInt8.self), first & 0x80 != 0 {
            types.append(first >> 4 & 0x03)
            data.moveReaderIndex(forwardBy: min(4, data.readableBytes))
            for _ in 0..<2 { _ = data.readInteger(as: UInt8.self).map { data.readSlice(length: Int($0)) } }
            if first >> 4 & 0x03 == 0 { _ = data.readQUICVarint().map { data.readSlice(length: Int($0)) } }
            guard let length = data.readQUICVarint(), data.readSlice(length: Int(length)) != nil else { break }
        }
        return types
    }
}

/// A capture, and the secrets to read it with.
private struct CaptureFiles {
    let capture: PacketCapture
    let keys: KeyLogFile
    private let capturePath: String
    private let keysPath: String

    init(in folder: URL) throws {
        capturePath = folder.appendingPathComponent("run.pcap").path
        keysPath = folder.appendingPathComponent("keys.log").path
        capture = try PacketCapture(path: capturePath)
        keys = try KeyLogFile(path: keysPath)
    }

    func read(withKeys: Bool = true) throws -> Tshark.Report {
        try Tshark.read(capture: capturePath, keys: withKeys ? keysPath : "/dev/null")
    }
}

/// Wireshark's command.
enum Tshark {
    static let path = ["/usr/bin/tshark", "/usr/local/bin/tshark"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }
    static var isInstalled: Bool { path != nil }

    /// What it says about a capture.
    struct Report: Sendable {
        /// The kinds of QUIC packets seen.
        var types: Set<String> = []
        /// Datagrams with a malformed packet or an expert's note of the severity "error".
        var errors: [String] = []
        /// Datagrams with a QUIC packet in which no frame could be read.
        var undecrypted: [String] = []
    }

    private static let longTypes = ["0": "Initial", "1": "0-RTT", "2": "Handshake", "3": "Retry"]
    /// Wireshark's number for the severity "error".
    private static let severityOfErrors = 8_388_608

    static func read(capture: String, keys: String) throws -> Report {
        let fields = [
            "frame.number", "quic.header_form", "quic.long.packet_type", "quic.frame", "quic.decryption_failed",
            "_ws.malformed", "_ws.expert.severity", "_ws.expert.message",
        ]
        let arguments =
            ["-n", "-r", capture, "-o", "tls.keylog_file:\(keys)", "-T", "fields", "-E", "separator=|"]
            + fields.flatMap { ["-e", $0] }
        var report = Report()
        for line in try run(arguments).split(separator: "\n") {
            let columns = line.split(separator: "|", omittingEmptySubsequences: false).map { String($0) }
            guard columns.count == fields.count else {
                report.errors.append("not understood: \(line)")
                continue
            }
            let long = columns[2].split(separator: ",").map { longTypes[String($0)] ?? "type \($0)" }
            let forms = columns[1].split(separator: ",")
            report.types.formUnion(long)
            if forms.contains("0") { report.types.insert("1-RTT") }
            let severities = columns[6].split(separator: ",").compactMap { Int($0) }
            if !columns[5].isEmpty || severities.contains(where: { $0 >= severityOfErrors }) || forms.isEmpty {
                report.errors.append(String(line))
            }
            let isRetry = long == ["Retry"]
            if !columns[4].isEmpty || (columns[3].isEmpty && !isRetry) { report.undecrypted.append(String(line)) }
        }
        if report.types.isEmpty { report.errors.append("tshark saw no QUIC packet") }
        return report
    }

    private static func run(_ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = path.map { URL(fileURLWithPath: $0) }
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "tshark ended with \(process.terminationStatus)")
        return text
    }
}
