import Foundation
import HTTP3
import HTTPTypes
import NIOCore
import NIOPosix
import Testing

@testable import static_files

/// The example that serves files.
@Suite("Static files", .timeLimit(.minutes(1)))
struct StaticFilesTests {
    /// A directory with files, beside one that must not be seen.
    private func withTree(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        let tree = folder.appendingPathComponent("tree")
        try FileManager.default.createDirectory(
            at: tree.appendingPathComponent("sub"), withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data("<p>hello</p>".utf8).write(to: tree.appendingPathComponent("index.html"))
        try Data("a b".utf8).write(to: tree.appendingPathComponent("sub/a b.txt"))
        try Data("hidden".utf8).write(to: tree.appendingPathComponent(".hidden"))
        try Data("secret".utf8).write(to: folder.appendingPathComponent("secret.txt"))
        try FileManager.default.createSymbolicLink(
            at: tree.appendingPathComponent("link.txt"), withDestinationURL: folder.appendingPathComponent("secret.txt")
        )
        try FileManager.default.createSymbolicLink(
            at: tree.appendingPathComponent("up"), withDestinationURL: folder)
        try await body(tree)
    }

    private func withFiles(_ tree: URL, _ body: (HTTP3ClientConnection) async throws -> Void) async throws {
        let handler = FileHandler(tree: try FileTree(tree.path), threads: .singleton)
        try await withServer { request, body, responder in
            try await handler.respond(request, body, responder)
        } _: { world in
            try await body(try await world.connect())
        }
    }

    private func get(
        _ connection: HTTP3ClientConnection, _ path: String, _ method: HTTPRequest.Method = .get, range: String? = nil,
        fields: HTTPFields = [:]
    ) async throws -> (HTTPResponse, String) {
        var request = HTTPRequest.to(path, method, fields)
        if let range { request.headerFields[.range] = range }
        let response = try await connection.request(request)
        return (response.head, String(buffer: try await response.body.collect(upTo: 1 << 20)))
    }

    @Test("Files are served with their types, whole and in ranges")
    func files() async throws {
        try await withTree { tree in
            try await withFiles(tree) { connection in
                let (index, page) = try await get(connection, "/?query")
                #expect(index.status == .ok && page == "<p>hello</p>")
                #expect(index.headerFields[.contentType] == "text/html; charset=utf-8")
                #expect(index.headerFields[.contentLength] == "12")
                #expect(try await get(connection, "/sub/a%20b.txt").1 == "a b")
                let (head, nothing) = try await get(connection, "/index.html", .head)
                #expect(head.headerFields[.contentLength] == "12" && nothing.isEmpty)
                let (part, text) = try await get(connection, "/index.html", range: "bytes=3-7")
                #expect(part.status == .partialContent && text == "hello")
                #expect(part.headerFields[.contentRange] == "bytes 3-7/12")
                #expect(try await get(connection, "/", range: "bytes=-4").1 == "</p>")
                #expect(try await get(connection, "/", range: "bytes=99-").0.status == .rangeNotSatisfiable)
                #expect(try await get(connection, "/", .post).0.status == .methodNotAllowed)
            }
        }
    }

    @Test("HEAD tells of the whole file, also where a range is asked for")
    func headOfRange() async throws {
        try await withTree { tree in
            try await withFiles(tree) { connection in
                for range in ["bytes=3-7", "bytes=99-"] {
                    let (head, nothing) = try await get(connection, "/index.html", .head, range: range)
                    #expect(head.status == .ok && head.headerFields[.contentLength] == "12" && nothing.isEmpty)
                    #expect(head.headerFields[.contentRange] == nil)
                }
            }
        }
    }

    @Test("A client is told that it has the file, and gets parts of no other version than it knows")
    func conditional() async throws {
        try await withTree { tree in
            try await withFiles(tree) { connection in
                let first = try await get(connection, "/").0
                let tag = try #require(first.headerFields[.eTag])
                for list in [tag, "W/\(tag)", "\"other\", \(tag)", "*"] {
                    let (same, nothing) = try await get(connection, "/", fields: [.ifNoneMatch: list])
                    #expect(same.status == .notModified && same.headerFields[.eTag] == tag && nothing.isEmpty)
                }
                let (other, page) = try await get(connection, "/", fields: [.ifNoneMatch: "\"other\""])
                #expect(other.status == .ok && page == "<p>hello</p>")
                let conditions: [(String, HTTPResponse.Status)] = [(tag, .ok), ("W/\(tag)", .preconditionFailed)]
                for (list, status) in conditions {
                    let answer = try await get(connection, "/", fields: [.ifMatch: list]).0
                    #expect(answer.status == status)
                }
                let part = try await get(connection, "/", fields: [.range: "bytes=3-7", .ifRange: tag]).1
                #expect(part == "hello")
                try Data("<p>changed</p>".utf8).write(to: tree.appendingPathComponent("index.html"))
                let (whole, changed) = try await get(connection, "/", fields: [.range: "bytes=3-7", .ifRange: tag])
                #expect(whole.status == .ok && changed == "<p>changed</p>")
            }
        }
    }

    @Test("The directory may be the topmost one")
    func topmost() throws {
        let files = try FileTree("/")
        #expect(files.file("/etc/passwd") != nil && files.file("/etc/\(UUID())") == nil)
    }

    @Test(
        "No path leads out of the directory",
        arguments: [
            "/../secret.txt", "/sub/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt",
            "/sub/%2e%2e/%2e%2e/secret.txt",
            "/..\\secret.txt", "/link.txt", "/up/secret.txt", "/.hidden", "//../secret.txt", "/index.html%00.txt",
            "/sub", "/none",
            "/%zz", "/....//secret.txt",
        ])
    func traversal(path: String) async throws {
        try await withTree { tree in
            try await withFiles(tree) { connection in
                let (response, body) = try await get(connection, path)
                #expect(response.status == .notFound && !body.contains("secret"))
            }
        }
    }

    @Test("A path with a slash at its end names a directory, and no file")
    func slash() async throws {
        try await withTree { tree in
            let files = try FileTree(tree.path)
            for path in ["/", "/?a/", "//", "/index.html", "/index.html?a/", "/sub/a%20b.txt"] {
                #expect(files.file(path) != nil, "\(path)")
            }
            for path in ["/index.html/", "/index.html/?a", "/index.html//", "/sub/a%20b.txt/", "/sub/"] {
                #expect(files.file(path) == nil, "\(path)")
            }
        }
    }

    @Test("What is no directory is refused before anything is served")
    func noDirectory() async throws {
        try await withTree { tree in
            for name in ["none", "index.html"] {
                #expect(throws: POSIXError.self) { _ = try FileTree(tree.appendingPathComponent(name).path) }
            }
        }
    }

    @Test("The command line asks for a directory and a port, or for help")
    func commandLine() {
        #expect(Invocation(["site"]) == .serve(directory: "site", port: 4433))
        #expect(Invocation(["site", "0"]) == .serve(directory: "site", port: 0))
        for arguments in [["--help"], ["-h"], ["site", "--help"]] { #expect(Invocation(arguments) == .help) }
        let wrong: [[String]] = [
            [], ["site", "http"], ["site", "65536"], ["site", "-1"], ["--port"], ["a", "1", "2"],
        ]
        for arguments in wrong {
            guard case .misuse = Invocation(arguments) else {
                Issue.record("\(arguments)")
                continue
            }
        }
    }

    @Test("A pipe among the files is not served, and holds no thread")
    func pipe() async throws {
        try await withTree { tree in
            #expect(mkfifo(tree.appendingPathComponent("pipe.txt").path, 0o600) == 0)
            // One thread: held, it would serve nothing more.
            let threads = NIOThreadPool(numberOfThreads: 1)
            threads.start()
            let handler = FileHandler(tree: try FileTree(tree.path), threads: threads)
            try await withServer { request, body, responder in
                try await handler.respond(request, body, responder)
            } _: { world in
                let connection = try await world.connect()
                #expect(try await get(connection, "/pipe.txt").0.status == .notFound)
                #expect(try await get(connection, "/").1 == "<p>hello</p>")
            }
            try await threads.shutdownGracefully()
        }
    }

    @Test("Ranges are read as RFC 9110 says")
    func ranges() {
        #expect(ByteRange.parse("bytes=0-", size: 10) == .part(0..<10))
        #expect(ByteRange.parse("bytes=2-3", size: 10) == .part(2..<4))
        #expect(ByteRange.parse("bytes=2-300", size: 10) == .part(2..<10))
        #expect(ByteRange.parse("bytes=-3", size: 10) == .part(7..<10))
        #expect(ByteRange.parse("bytes=-30", size: 10) == .part(0..<10))
        #expect(ByteRange.parse("bytes=-0", size: 10) == .unsatisfiable)
        #expect(ByteRange.parse("bytes=10-", size: 10) == .unsatisfiable)
        #expect(ByteRange.parse("bytes=0-", size: 0) == .unsatisfiable)
        for text in [
            "bytes=5-2", "bytes=a-b", "bytes=1-2,3-4", "lines=1-2", "bytes=", "bytes=1", "bytes=9223372036854775808-",
            "bytes=+1-2", "bytes=1-+2", "bytes=-+2",
        ] {
            #expect(ByteRange.parse(text, size: 10) == .whole)
        }
    }
}
