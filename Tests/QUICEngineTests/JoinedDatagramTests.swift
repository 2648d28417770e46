import LonglineTestKit
import QUICEngine
import Testing

@Suite("Joined datagrams")
struct JoinedDatagramTests {
    /// Two endpoints whose runs are handed over as the kernel joins them, a foreign datagram among them now and then.
    private final class Pair {
        let client: QUICEndpoint
        let server: QUICEndpoint
        var now = QUICInstant(nanoseconds: 1_000_000_000)
        var received: [UInt8] = []
        var foreign: UInt64 = 0
        private let space = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

        init(tls: TLSServerContext) throws {
            var configuration = EndpointConfiguration()
            configuration.server = ServerConfiguration(tls: tls)
            server = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 1))
            client = try QUICEndpoint(configuration: EndpointConfiguration(), random: SeededRandom(seed: 2))
        }

        deinit { space.deallocate() }

        func cross(from sender: QUICEndpoint, to receiver: QUICEndpoint) {
            while let run = sender.pollTransmit(into: space, now: now) {
                var bytes = Array(space[..<run.length])
                if run.length > 4 * run.segmentSize {
                    // Of nobody's connection ID, in the middle.
                    bytes.insert(contentsOf: [UInt8](repeating: 0x41, count: run.segmentSize), at: 2 * run.segmentSize)
                    foreign += 1
                }
                bytes.withUnsafeBytes {
                    receiver.receive(
                        $0, segmentSize: run.segmentSize,
                        path: QUICPath(local: run.path.remote, remote: run.path.local), ecn: run.ecn, now: now)
                }
            }
        }

        func step() throws {
            cross(from: client, to: server)
            while let (connection, event) = server.pollEvent() {
                guard case .streamReadable(let stream) = event else { continue }
                _ = try connection.read(stream) { bytes in
                    received += bytes
                    return bytes.count
                }
            }
            cross(from: server, to: client)
            now = now.advanced(byNanoseconds: 1_000_000)
            client.handleDeadline(now: now)
            server.handleDeadline(now: now)
        }
    }

    @Test("are taken as if each had come alone, and a foreign one among them is counted")
    func joined() throws {
        let certificate = try DevelopmentCertificate.generate(names: ["localhost"], now: 1_700_000_000)
        let pair = try Pair(
            tls: TLSServerContext(credentials: certificate.credentials, applicationProtocols: ["test"]))
        let connection = try pair.client.connect(
            to: QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 443),
            from: QUICSocketAddress(ipv4: (10, 0, 0, 2), port: 5_000),
            configuration: ClientConfiguration(
                serverName: "localhost", applicationProtocols: ["test"],
                verification: .pinnedPublicKey(sha256: [certificate.publicKeySHA256])), now: pair.now)
        for _ in 0..<50 where connection.handshake == nil {
            try pair.step()
            while pair.client.pollEvent() != nil {}
        }
        let stream = try #require(try connection.openStream(bidirectional: false))
        let sent = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        var written = 0
        for _ in 0..<2_000 where pair.received.count < sent.count {
            if written < sent.count {
                written += try sent[written...].withUnsafeBytes {
                    try connection.write($0, to: stream, finish: false)
                }
            }
            try pair.step()
            while pair.client.pollEvent() != nil {}
        }
        #expect(pair.received == sent)
        #expect(pair.foreign > 0, "runs were long enough to hide something in them")
        #expect(pair.server.counters.unknownConnectionIDs == pair.foreign)
        #expect(pair.server.counters.datagramsReceived == pair.client.counters.datagramsSent + pair.foreign)
    }
}
