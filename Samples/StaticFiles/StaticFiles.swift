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
    static func main() async {
        switch Invocation(Array(CommandLine.arguments.dropFirst())) {
        case .help: print(Invocation.helpText)
        case .misuse(let problem): fail("\(problem)\nUsage: \(Invocation.usage)", status: 64)
        case .serve(let directory, let port):
            guard let tree = try? FileTree(directory) else {
                fail("'\(directory)' is no directory that can be read", status: 66)
            }
            do { try await serve(tree, port: port) } catch { fail("\(error)", status: 1) }
        }
    }

    /// Says why on standard error, and ends the program.
    private static func fail(_ problem: String, status: Int32) -> Never {
        FileHandle.standardError.write(Data("static-files: \(problem)\n".utf8))
        exit(status)
    }

    private static func serve(_ tree: FileTree, port: Int) async throws {
        let now = UInt64(Date().timeIntervalSince1970)
        let certificate = try DevelopmentCertificate.generate(names: ["localhost"], now: now)
        try certificate.certificatePEM.write(toFile: "localhost.pem", atomically: true, encoding: .utf8)

        let threads = NIOThreadPool.singleton
        let handler = FileHandler(tree: tree, threads: threads)
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
