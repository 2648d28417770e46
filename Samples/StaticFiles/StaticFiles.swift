import Foundation
import HTTP3
import NIOCore
import NIOPosix
import QUICTransport

// A server of static files over HTTP/3.
//
//     static-files DIRECTORY [PORT]
//
// It makes a certificate for localhost, leaves it as localhost.pem in the present directory, and serves on 127.0.0.1 until it is
// interrupted. For instance, with Debian's ngtcp2-client:
//
//     gtlsclient --download=. --exit-on-all-streams-close 127.0.0.1 4433 https://localhost/index.html

@main struct StaticFiles {
    static func main() async throws {
        guard CommandLine.arguments.count > 1, let port = Int(CommandLine.arguments.dropFirst(2).first ?? "4433") else {
            print("static-files DIRECTORY [PORT]")
            exit(64)
        }
        let now = UInt64(Date().timeIntervalSince1970)
        let certificate = try DevelopmentCertificate.generate(names: ["localhost"], now: now)
        try certificate.certificatePEM.write(toFile: "localhost.pem", atomically: true, encoding: .utf8)

        let threads = NIOThreadPool.singleton
        let handler = FileHandler(tree: try FileTree(CommandLine.arguments[1]), threads: threads)
        let tls = try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: [HTTP3Service.applicationProtocol])
        let server = try await HTTP3Server.bind(
            addresses: [SocketAddress(ipAddress: "127.0.0.1", port: port)],
            configuration: QUICServerConfiguration(server: ServerConfiguration(tls: tls)),
            group: MultiThreadedEventLoopGroup.singleton
        ) { request, body, responder in
            try await handler.respond(request, body, responder)
        }
        print("https://localhost:\(server.localAddresses.first?.port ?? 0)/")

        // Until SIGINT: then what is under way is finished.
        signal(SIGINT, SIG_IGN)
        let interrupts = DispatchSource.makeSignalSource(signal: SIGINT)
        await withCheckedContinuation { continuation in
            interrupts.setEventHandler {
                interrupts.cancel()
                continuation.resume()
            }
            interrupts.resume()
        }
        await server.shutdownGracefully()
    }
}
