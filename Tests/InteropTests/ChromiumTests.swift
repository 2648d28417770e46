import Foundation
import HTTP3
import HTTPTypes
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// HTTP/3 with the browser that most people have. Nothing listens for TCP where it asks.
@Suite(
    "Chromium over HTTP/3", .timeLimit(.minutes(2)),
    .enabled(if: Chromium.isInstalled, "\(Chromium.howToInstall)"))
struct ChromiumTests {
    private static let images = 24
    private static let fileSize = 700_000

    private static let page: String = {
        let elements = (1...images).map { #"<img src="/image/\#($0).svg" alt="">"# }.joined(separator: "\n")
        return """
            <!doctype html><html lang="en"><head><meta charset="utf-8"><title>Longline</title>
            <link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
            <script src="/script.js"></script></head><body>\(elements)</body></html>
            """
    }()

    /// What a browser did that only the server sees.
    private struct Site: Sendable {
        /// Uploads that were the file, byte by byte.
        let uploads = Counter()
        /// Responses without an end that were given up.
        let givenUp = Counter()

        func respond(_ request: HTTPRequest, _ body: HTTP3Body, _ responder: HTTP3Responder) async throws {
            func answer(_ type: String, _ bytes: ByteBuffer) async throws {
                let fields: HTTPFields = [
                    .contentType: type, .contentLength: "\(bytes.readableBytes)", .cacheControl: "no-store",
                ]
                try await responder.respond(HTTPResponse(status: .ok, headerFields: fields), body: bytes)
            }
            switch (request.method, request.path ?? "") {
            case (.get, "/"): try await answer("text/html", ByteBuffer(string: ChromiumTests.page))
            case (.get, "/style.css"): try await answer("text/css", ByteBuffer(string: "body { margin: 7px }"))
            case (.get, "/script.js"): try await answer("text/javascript", ByteBuffer(string: "window.ran = true"))
            case (.get, "/file"):
                try await answer("application/octet-stream", ByteBuffer(bytes: pattern(ChromiumTests.fileSize)))
            case (.get, let path) where path.hasPrefix("/image/"):
                // Each as wide as its number says.
                let width = path.dropFirst("/image/".count).prefix { $0.isNumber }
                let image = #"<svg xmlns="http://www.w3.org/2000/svg" width="\#(width)" height="5"/>"#
                try await answer("image/svg+xml", ByteBuffer(string: image))
            case (.get, "/endless"):
                let writer = try await responder.start(
                    HTTPResponse(status: .ok, headerFields: [.contentType: "application/octet-stream"]))
                do { while true { try await writer.write(ByteBuffer(repeating: 1, count: 10_000)) } } catch {
                    if (error as? HTTP3Error)?.protocolCode == .requestCancelled { givenUp.add() }
                    throw error
                }
            case (.post, "/echo"):
                let uploaded = try await body.collect(upTo: 1 << 20)
                if Array(uploaded.readableBytesView) == pattern(ChromiumTests.fileSize) { uploads.add() }
                try await answer("application/octet-stream", uploaded)
            default: try await responder.respond(HTTPResponse(status: .notFound))
            }
        }
    }

    /// A server of ours for as long as the body takes.
    private func withServer(
        port: Int = 0, tickets: TicketKeyRing? = nil, _ site: Site = Site(),
        _ body: (HTTP3Server, Int) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let server = try await HTTP3Server.bind(
            addresses: [loopback(port: port)],
            configuration: serverConfiguration(protocols: ["h3"], tickets: tickets),
            group: group
        ) { request, body, responder in try await site.respond(request, body, responder) }
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(server, try #require(server.localAddresses.first?.port)))
        } catch {
            outcome = .failure(error)
        }
        await server.shutdownGracefully(grace: .seconds(1), timeout: .seconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }

    private func secondBegins() async throws {
        try await Task.sleep(for: .seconds(1 - Date().timeIntervalSince1970.truncatingRemainder(dividingBy: 1)))
    }

    /// Nothing went wrong in the page, and everything came over HTTP/3.
    private func check(_ page: Chromium.Page, responses: Int) async throws {
        let seen = try await page.seen()
        #expect(seen.problems == [])
        #expect(seen.responses.count == responses)
        for response in seen.responses {
            #expect(response.status == 200 && response.protocolName == "h3", "\(response)")
        }
        let protocols = try await page.value(
            """
            ["navigation", "resource"].flatMap(type => performance.getEntriesByType(type))
                .filter(entry => entry.name.startsWith("https:")).map(entry => entry.nextHopProtocol)
            """, as: [String].self)
        #expect(protocols == Array(repeating: "h3", count: responses))
    }

    @Test("A page with style, script and images, a file of 700 kB there and back by fetch")
    func page() async throws {
        let site = Site()
        try await withServer(site) { server, port in
            try await Chromium.run(trusting: [certificate.publicKeySHA256], quicPort: port) { chromium in
                let page = try await chromium.open("https://localhost:\(port)/")
                let widths = try await page.value(
                    "[...document.images].map(image => image.naturalWidth)", as: [Int].self)
                #expect(widths == Array(1...Self.images))
                #expect(
                    try await page.value("window.ran && getComputedStyle(document.body).margin", as: String.self)
                        == "7px")
                let isSame = try await page.value(
                    """
                    (async () => {
                        const file = new Uint8Array(await (await fetch("/file")).arrayBuffer());
                        const answer = await fetch("/echo", { method: "POST", body: file });
                        const back = new Uint8Array(await answer.arrayBuffer());
                        return back.length === \(Self.fileSize) && back.every((byte, at) => byte === file[at]);
                    })()
                    """, as: Bool.self)
                #expect(isSame && site.uploads.value == 1)
                try await check(page, responses: Self.images + 5)
                let statistics = server.statistics
                #expect(statistics.protocolErrors == 0 && statistics.malformed == 0)
                #expect(statistics.responses == Self.images + 5)
                let counters = await server.counters().engine
                #expect(counters.protocolErrors == 0 && counters.handshakesFailed == 0)
            }
        }
    }

    @Test("A response that the page gives up ends alone")
    func abort() async throws {
        let site = Site()
        try await withServer(site) { server, port in
            try await Chromium.run(trusting: [certificate.publicKeySHA256], quicPort: port) { chromium in
                let page = try await chromium.open("https://localhost:\(port)/")
                let outcome = try await page.value(
                    """
                    (async () => {
                        const control = new AbortController();
                        const reader = (await fetch("/endless", { signal: control.signal })).body.getReader();
                        for (let count = 0; count < 1_000_000;) count += (await reader.read()).value.length;
                        control.abort();
                        try { while (!(await reader.read()).done); } catch (error) { return error.name; }
                    })()
                    """, as: String.self)
                #expect(outcome == "AbortError")
                try await eventually { site.givenUp.value == 1 }
                #expect(try await page.value("fetch('/file').then(answer => answer.status)", as: Int.self) == 200)
                let counters = await server.counters().engine
                #expect(counters.handshakesCompleted == 1 && counters.protocolErrors == 0)
            }
        }
    }

    @Test("The server goes away and comes back: the browser resumes, and is refused 0-RTT with tickets of another life")
    func restart() async throws {
        var random = SystemRandomNumberGenerator()
        let tickets = TicketKeyRing(random: &random, now: wallClock())
        let port = try await DebianToolsTests.freePort(on: MultiThreadedEventLoopGroup.singleton)
        try await Chromium.run(trusting: [certificate.publicKeySHA256], quicPort: port) { chromium in
            try await withServer(port: port, tickets: tickets) { _, _ in
                let page = try await chromium.open("https://localhost:\(port)/")
                try await check(page, responses: Self.images + 3)
            }
            try await withServer(port: port, tickets: tickets) { server, _ in
                let page = try await chromium.open("https://localhost:\(port)/")
                try await check(page, responses: Self.images + 3)
                let counters = await server.counters().engine
                #expect(counters.handshakesCompleted == 1 && counters.handshakesResumed == 1)
                #expect(counters.earlyDataAccepted == 0 && server.statistics.earlyRequests == 0)
            }
        }
    }

    /// The path takes its time, so that what the browser asks in its first flight is there before the handshake ends. It dates
    /// tickets in whole seconds: where a second ends between two visits it says that its ticket is older than it can be, and
    /// GnuTLS refuses 0-RTT. So each second visit follows in the second of the one before.
    @Test("After a GOAWAY the browser makes a new connection, which it resumes, and in one of some visits with 0-RTT")
    func goaway() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let site = Site()
        let current = Mutex(HTTP3Service())
        let server = try await QUICServer.bind(
            addresses: [loopback()], configuration: serverConfiguration(protocols: ["h3"]), group: group
        ) { connection in
            HTTP3ServerSession(connection, service: current.withLock { $0 }) { try await site.respond($0, $1, $2) }
        }
        let outcome: Result<Void, any Error>
        do {
            let relay = try await Relay.open(to: #require(server.localAddresses.first), delay: .milliseconds(30))
            let port = relay.port
            try await Chromium.run(trusting: [certificate.publicKeySHA256], quicPort: port) { chromium in
                var visits: UInt64 = 0
                var isEarly = false
                repeat {
                    if visits.isMultiple(of: 2) { try await secondBegins() }
                    try await check(chromium.open("https://localhost:\(port)/"), responses: Self.images + 3)
                    visits += 1
                    let old = current.withLock { service in
                        defer { service = HTTP3Service() }
                        return service
                    }
                    await old.drain(grace: .seconds(20))
                    #expect(old.statistics.responses == Self.images + 3)
                    isEarly = old.statistics.earlyRequests > 0
                } while visits < 24 && (visits < 2 || !isEarly)
                let counters = await server.counters().engine
                #expect(counters.handshakesCompleted == visits && counters.handshakesResumed == visits - 1)
                #expect(isEarly && counters.earlyDataAccepted >= 1, "\(visits) visits: \(counters)")
            }
            await relay.close()
            outcome = .success(())
        } catch {
            outcome = .failure(error)
        }
        await server.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }
}
