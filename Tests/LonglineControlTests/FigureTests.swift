import Foundation
import HTTP3
import HTTPTypes
import LonglineClient
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@testable import LonglineControl

@Suite("Figures of connections", .timeLimit(.minutes(2))) struct FigureTests {
    @Test("handshakes of HTTP/3 count as those of sessions do")
    func http3() async throws {
        try await withControl { service in
            let client = HTTP3Client()
            let configuration = ClientConfiguration(
                serverName: "localhost", applicationProtocols: [HTTP3Service.applicationProtocol],
                verification: .pinnedPublicKey(sha256: [service.pin]))
            let port = try #require(service.server.addresses.first?.port)
            for _ in 0..<3 {
                let connection = try await client.connect(
                    host: "127.0.0.1", port: port, configuration: configuration,
                    on: MultiThreadedEventLoopGroup.singleton.next())
                let answer = try await connection.request(
                    .init(method: .get, scheme: "https", authority: "localhost", path: "/.well-known/jwks.json"))
                #expect(answer.status == .ok)
            }
            let figures = try await service.ask(.get, "/metrics", from: "127.0.0.1")
            let lines = String(decoding: figures.body, as: UTF8.self).split(separator: "\n")
            #expect(lines.contains(#"longline_handshakes_total{kind="full"} 3"#), "\(lines)")
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }
}
