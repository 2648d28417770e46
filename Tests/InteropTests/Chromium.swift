import Foundation
import LonglineTestKit
import Testing

/// A Chromium without a window, in which tests open pages: peers/chromium.py starts it and talks to it.
struct Chromium: Sendable {
    private let peer: Peer

    /// The first of these in PATH.
    private static let program = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        .flatMap { folder in ["chromium", "chromium-browser", "google-chrome"].map { "\(folder)/\($0)" } }
        .first { FileManager.default.isExecutableFile(atPath: $0) }
    /// Its script needs nothing but Python.
    private static let python = URL(fileURLWithPath: "/usr/bin/python3")

    static let isInstalled = program != nil && FileManager.default.isExecutableFile(atPath: python.path)
    static let howToInstall = "Chromium or Python 3 is not installed: scripts/test does that on Debian"

    /// Runs one for as long as `body` takes.
    /// - Parameters:
    ///   - keys: SHA-256 of the public keys that it trusts.
    ///   - quicPort: a port of this machine that it asks over QUIC alone.
    static func run<Result>(
        trusting keys: [[UInt8]], quicPort: Int? = nil, _ body: (Chromium) async throws -> Result
    ) async throws -> Result {
        try await Peer.run(script: "chromium.py", python: python) { peer in
            try await peer(
                "start",
                [
                    "program": .text(try #require(program)),
                    "folder": .text(peer.folder.url.appendingPathComponent("profile").path),
                    "keys": .list(keys.map { .text(Data($0).base64EncodedString()) }),
                    "quic": .list(quicPort.map { [.text("localhost:\($0)")] } ?? []),
                ])
            let result: Result
            do { result = try await body(Chromium(peer: peer)) } catch {
                try? await peer("close")
                throw error
            }
            try await peer("close")
            return result
        }
    }

    /// Opens a page in a tab of its own, and waits until everything in it is loaded.
    func open(_ url: String, width: Int = 1280, height: Int = 900) async throws -> Page {
        let page = Page(name: UUID().uuidString, peer: peer)
        try await peer(
            "open",
            ["page": .text(page.name), "url": .text(url), "width": .number(width), "height": .number(height)])
        return page
    }

    struct Page: Sendable {
        fileprivate let name: String
        fileprivate let peer: Peer

        private struct Value<Wrapped: Decodable & Sendable>: Decodable, Sendable { var value: Wrapped }

        /// What an expression of JavaScript, or the promise that it makes, comes to.
        func value<Wrapped: Decodable & Sendable>(_ expression: String, as type: Wrapped.Type) async throws -> Wrapped {
            try await peer("evaluate", ["page": .text(name), "expression": .text(expression)], as: Value<Wrapped>.self)
                .value
        }

        /// Waits until an expression of JavaScript is true.
        func wait(until expression: String) async throws {
            try await peer("until", ["page": .text(name), "expression": .text(expression)])
        }

        struct Seen: Decodable, Sendable {
            struct Response: Decodable, Sendable {
                var url: String
                var status: Int
                /// As the browser calls it: `h3`, `h2`, `http/1.1`.
                var protocolName: String

                private enum CodingKeys: String, CodingKey {
                    case url, status
                    case protocolName = "protocol"
                }
            }

            var responses: [Response]
            /// Errors and warnings of its console, exceptions, requests that failed.
            var problems: [String]
        }

        /// What came over the network, and what went wrong, so far.
        func seen() async throws -> Seen { try await peer("seen", ["page": .text(name)], as: Seen.self) }

        /// Saves a picture of it, in PNG.
        func saveScreenshot(to path: String, dark: Bool = false) async throws {
            try await peer("screenshot", ["page": .text(name), "path": .text(path), "dark": .flag(dark)])
        }
    }
}
