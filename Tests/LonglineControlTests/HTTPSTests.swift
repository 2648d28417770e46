import AsyncHTTPClient
import Foundation
import HTTPTypes
import LonglineServer
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOSSL
import QUICEngine
import Synchronization
import Testing

@testable import LonglineControl

@Suite("HTTPS", .timeLimit(.minutes(2))) struct HTTPSTests {
    /// Asks over TLS, and believes a certificate, that of the service unless another one is given.
    private func withClient(
        _ service: ControlService, _ version: HTTPClient.Configuration.HTTPVersion,
        believing certificatePEM: String? = nil,
        _ body: (HTTPClient) async throws -> Void
    ) async throws {
        var tls = TLSConfiguration.makeClientConfiguration()
        let trusted = certificatePEM ?? service.certificatePEM
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(trusted.utf8)))
        var configuration = HTTPClient.Configuration(tlsConfiguration: tls)
        configuration.httpVersion = version
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        do { try await body(client) } catch {
            try await client.shutdown()
            throw error
        }
        try await client.shutdown()
    }

    private func url(_ service: ControlService, _ listener: ControlListener, _ path: String) async throws -> String {
        let port = try #require(try await service.control.localAddresses(listener).first?.port)
        return "https://localhost:\(port)\(path)"
    }

    @Test("both versions of HTTP have the same routes, and say where HTTP/3 is", arguments: [1, 2])
    func versions(version: Int) async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await withClient(service, version == 1 ? .http1Only : .automatic) { client in
                var request = HTTPClientRequest(url: try await url(service, .service, "/v1/tokens"))
                request.method = .POST
                request.headers = ["authorization": "Bearer \(key)", "content-type": "application/json"]
                request.body = .bytes(ByteBuffer(string: #"{"user":"ann","device":"phone"}"#))
                let issued = try await client.execute(request, timeout: .seconds(30))
                #expect(issued.status == .created && issued.version.major == version)
                #expect(issued.headers["alt-svc"].count == 1 && issued.headers["x-request-id"].count == 1)
                let body = try await issued.body.collect(upTo: 1 << 20)
                let token = try #require(
                    try JSONSerialization.jsonObject(with: Data(body.readableBytesView)) as? [String: Any])["token"]

                service.control.announceHTTP3(onPort: 4433)
                var access = HTTPClientRequest(url: try await url(service, .service, "/v1/access"))
                access.headers = ["authorization": "Bearer \(token ?? "")"]
                let answer = try await client.execute(access, timeout: .seconds(30))
                #expect(answer.status == .ok)
                #expect(answer.headers["alt-svc"] == [#"h3=":4433"; ma=86400"#])
                // Operators' answers are for no other transport.
                let health = HTTPClientRequest(url: try await url(service, .admin, "/healthz"))
                #expect(try await client.execute(health, timeout: .seconds(30)).headers["alt-svc"] == [])
            }
        }
    }

    @Test("saying where HTTP/3 is takes as much of the stack the ten thousandth time as the first")
    func alternativeService() {
        let places = Mutex<Set<Int>>([])
        let service = AlternativeService {
            var here = 0
            let place = withUnsafePointer(to: &here) { Int(bitPattern: $0) }
            places.withLock { _ = $0.insert(place) }
            return 443
        }
        for _ in 0..<10_000 { #expect(service.header == "h3=\":443\"; ma=86400") }
        #expect(places.withLock { $0 }.count == 1)
        service.set(8443)
        #expect(service.header == "h3=\":8443\"; ma=86400")
        service.set(nil)
        #expect(service.header == nil)
    }

    @Test("operators' routes are on their own listener only")
    func listeners() async throws {
        try await withControl { service in
            try await withClient(service, .automatic) { client in
                for path in ["/", "/healthz", "/readyz", "/metrics", "/v1/statistics", "/v1/users/ann/sessions"] {
                    let request = HTTPClientRequest(url: try await url(service, .service, path))
                    #expect(try await client.execute(request, timeout: .seconds(30)).status == .notFound, "\(path)")
                }
                for path in ["/", "/healthz", "/readyz", "/metrics", "/.well-known/jwks.json"] {
                    let request = HTTPClientRequest(url: try await url(service, .admin, path))
                    #expect(try await client.execute(request, timeout: .seconds(30)).status == .ok, "\(path)")
                }
            }
        }
    }

    @Test("nothing listens that was not asked for")
    func nowhere() async throws {
        try await withControl({ $0.adminAddresses = [] }) { service in
            let admin = try await service.control.localAddresses(.admin)
            let addresses = try await service.control.localAddresses(.service)
            #expect(admin.isEmpty && addresses.map(\.ipAddress) == ["127.0.0.1"])
        }
    }

    @Test("an address that somebody has is an error that says so, and ends the control layer")
    func taken() async throws {
        try await withControl { service in
            let taken = try #require(try await service.control.localAddresses(.service).first)
            var configuration = LonglineControl.Configuration(
                certificate: service.server.configuration.certificate, keys: DirectoryControlKeys(service.directory),
                database: service.database)
            configuration.addresses = [taken]
            configuration.servesHTTP3 = false
            configuration.logger = service.log.logger
            let second = try LonglineControl(server: service.server, configuration: configuration)
            let error = await #expect(throws: ControlError.self) { try await second.run() }
            #expect(error?.code == .addressUnavailable)
            #expect(error?.description.contains(": Address already in use (choose") == true)
            await #expect(throws: ControlError.self) { _ = try await second.localAddresses(.service) }
        }
    }

    @Test("a new certificate is presented to new connections")
    func certificate() async throws {
        let folder = try TemporaryFolder()
        let other = try ServerDirectory(folder.path).developmentIdentity(names: ["localhost"])
        let isNew = Flag()
        try await withControl({ configuration in
            let first = configuration.certificate
            configuration.certificate = { isNew.isSet ? other.credentials : try first() }
        }
        ) { service in
            let address = try await url(service, .service, "/openapi.yaml")
            try await withClient(service, .http1Only) { client in
                _ = try await client.execute(HTTPClientRequest(url: address), timeout: .seconds(30))
            }
            isNew.set()
            try service.control.reloadCertificate()
            try await withClient(service, .http1Only, believing: other.credentials.certificateChainPEM) { client in
                let answer = try await client.execute(HTTPClientRequest(url: address), timeout: .seconds(30))
                #expect(answer.status == .ok)
            }
        }
    }

    @Test("headers have their limit over both versions of HTTP", arguments: [1, 2])
    func headerLimit(version: Int) async throws {
        try await withControl { service in
            try await withClient(service, version == 1 ? .http1Only : .automatic) { client in
                for size in [1, 20_000] {
                    var request = HTTPClientRequest(url: try await url(service, .service, "/.well-known/jwks.json"))
                    request.headers = ["x-long": String(repeating: "a", count: size)]
                    let answer = try await client.execute(request, timeout: .seconds(30))
                    #expect(answer.status == .ok && answer.version.major == version)
                    _ = try await answer.body.collect(upTo: 1 << 20)
                }
                var request = HTTPClientRequest(url: try await url(service, .service, "/.well-known/jwks.json"))
                request.headers = ["x-long": String(repeating: "a", count: 40_000)]
                if version == 1 {
                    #expect(try await client.execute(request, timeout: .seconds(30)).status == .badRequest)
                }
            }
        }
    }

    @Test("a request has so many header fields and no more, over both versions of HTTP", arguments: [1, 2])
    func headerCount(version: Int) async throws {
        try await withControl { service in
            try await withClient(service, version == 1 ? .http1Only : .automatic) { client in
                for (count, status) in [(60, 200), (101, 431)] {
                    var request = HTTPClientRequest(url: try await url(service, .service, "/.well-known/jwks.json"))
                    for index in 0..<count { request.headers.add(name: "x-\(index)", value: "a") }
                    let answer = try await client.execute(request, timeout: .seconds(30))
                    #expect(answer.status.code == status && answer.version.major == version)
                    let body = String(buffer: try await answer.body.collect(upTo: 1 << 20))
                    #expect(body.contains("urn:longline:problem:headers-too-large") == (status == 431))
                }
            }
        }
    }

    @Test("more header fields than a message can have are refused, however few bytes they are")
    func shortFields() async throws {
        try await withControl({ $0.limits.headerBytes = 256 * 1024 }) { service in
            let connection = try await RawConnection(service, "http/1.1")
            let fields = String(repeating: "a:\r\n", count: 70_000)
            // What comes behind the answer may find the connection closed.
            try? await connection.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\(fields)\r\n")
            #expect(await connection.end().hasPrefix("HTTP/1.1 400"))
            expectRefused(service) { $0.limits.headerBytes = 2 * 1024 * 1024 }
        }
    }

    /// A control layer that is set up like this can't be made.
    private func expectRefused(
        _ service: ControlService, _ change: (inout LonglineControl.Configuration) -> Void
    ) {
        var configuration = LonglineControl.Configuration(
            certificate: service.server.configuration.certificate, keys: DirectoryControlKeys(service.directory),
            database: service.database)
        configuration.servesHTTP3 = false
        change(&configuration)
        let error = #expect(throws: ControlError.self) {
            _ = try LonglineControl(server: service.server, configuration: configuration)
        }
        #expect(error?.code == .invalidConfiguration)
    }

    @Test(
        "times and rates that make no sense are refused when the control layer is made",
        arguments: [
            { $0.limits.idleTimeout = .seconds(Int64.max) }, { $0.limits.bodyTimeout = .seconds(86_401) },
            { $0.limits.requestTimeout = .zero }, { $0.limits.handshakeTimeout = .seconds(-1) },
            { $0.limits.closeTimeout = .seconds(-1) }, { $0.sampleInterval = .zero },
            { $0.keyInterval = .seconds(Int64.max) }, { $0.limits.logLinesPerSecond = .nan },
            { $0.limits.logLinesPerSecond = 0 },
        ] as [@Sendable (inout LonglineControl.Configuration) -> Void])
    func senseless(_ change: @Sendable (inout LonglineControl.Configuration) -> Void) async throws {
        try await withControl { service in expectRefused(service, change) }
    }

    @Test(
        "a request over HTTP/1.1 has one Host",
        arguments: [
            ("HTTP/1.1", "Host: x\r\n", "200"), ("HTTP/1.1", "", "400"), ("HTTP/1.1", "Host: x\r\nhost: y\r\n", "400"),
            ("HTTP/1.0", "", "200"), ("HTTP/1.0", "Host: x\r\n", "200"), ("HTTP/1.1", "Host:\r\n", "200"),
            ("HTTP/1.1", "Host: [::1]:8443\r\n", "200"), ("HTTP/1.1", "Host: a@x\r\n", "400"),
            ("HTTP/1.1", "Host: x/y\r\n", "400"), ("HTTP/1.1", "Host: x y\r\n", "400"),
            ("HTTP/1.0", "Host: x?y\r\n", "400"),
        ])
    func hosts(version: String, hosts: String, status: String) async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "http/1.1")
            try await connection.send("GET /.well-known/jwks.json \(version)\r\n\(hosts)Connection: close\r\n\r\n")
            #expect(await connection.end().hasPrefix("HTTP/1.1 \(status)"))
        }
    }

    @Test(
        "a request over HTTP/1.1 whose end others may see elsewhere is refused, and what is behind it not read",
        arguments: [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: +5\r\n", "Transfer-Encoding : chunked\r\n",
            "X: a\r\n Content-Length: 5\r\n", "X: a\nContent-Length: 5\r\n",
        ])
    func framing(fields: String) async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "http/1.1")
            let request = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n"
            try await connection.send("\(request)\(fields)\r\n0\r\n\r\n\(request)\r\n")
            let answers = await connection.end().components(separatedBy: "HTTP/1.1 ").dropFirst()
            #expect(answers.count == 1 && answers.first?.hasPrefix("400") == true)
        }
    }

    @Test(
        "over HTTP/2, a Host says what the authority does",
        arguments: [
            ("x", "x", true), ("x", "X", true), ("x", "y", false), ("a@x", nil, false),
            ("", nil, false), ("", "", false), ("x", "", false),
        ] as [(String, String?, Bool)])
    func hostsOfStreams(authority: String, host: String?, isTaken: Bool) async throws {
        func line(_ name: [UInt8], _ value: String) -> [UInt8] { name + [UInt8(value.utf8.count)] + Array(value.utf8) }
        try await withControl { service in
            let connection = try await RawConnection(service, "h2")
            try await connection.send(RawConnection.preface())
            // GET and https, without Huffman's code.
            var head: [UInt8] = [0x82, 0x87] + line([0x01], authority) + line([0x04], "/.well-known/jwks.json")
            if let host { head += line([0x00, 4] + Array("host".utf8), host) }
            try await connection.send(RawConnection.frame(1, flags: 5, stream: 1, head))
            #expect(await connection.receives(isTaken ? "\"keys\"" : "invalid-request"))
        }
    }

    @Test("a body that waits to be asked for is asked for, unless the request is refused before")
    func expectation() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let body = #"{"user":"ann","device":"phone"}"#
            func head(_ key: String) -> String {
                "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(key)\r\nContent-Type: application/json\r\n"
                    + "Content-Length: \(body.utf8.count)\r\nExpect: 100-continue\r\n\r\n"
            }
            let connection = try await RawConnection(service, "http/1.1")
            for _ in 0..<2 {
                try await connection.send(head(key))
                #expect(await connection.receives("HTTP/1.1 100 Continue\r\n\r\n"))
                try await connection.send(body)
                #expect(await connection.receives("HTTP/1.1 201"))
            }
            // Whether the body comes all the same nobody knows, so that nothing can come behind it.
            let refused = try await RawConnection(service, "http/1.1")
            try await refused.send(head("x"))
            let answer = await refused.end()
            #expect(answer.hasPrefix("HTTP/1.1 401") && answer.lowercased().contains("\r\nconnection: close\r\n"))
        }
    }
}
