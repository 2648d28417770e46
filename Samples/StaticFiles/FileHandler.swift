import Foundation
import HTTP3
import HTTPTypes
import NIOCore
import NIOPosix

/// Answers GET and HEAD with files, whole or one range of them (RFC 9110 section 14).
struct FileHandler: Sendable {
    /// Bytes read from a file, and kept, at a time for one response.
    private static let pieceSize: Int64 = 64 << 10

    let tree: FileTree
    /// Where the disk is looked at, which is no work for an event loop.
    let threads: NIOThreadPool

    func respond(_ request: HTTPRequest, _ body: HTTP3Body, _ responder: HTTP3Responder) async throws {
        guard request.method == .get || request.method == .head else {
            return try await plain(responder, .methodNotAllowed, [.allow: "GET, HEAD"])
        }
        let tree = self.tree
        let requested = request.path ?? ""
        let found = try await threads.runIfActive { () -> (path: String, file: OpenFile)? in
            guard let path = tree.file(requested), let file = try? OpenFile(path) else { return nil }
            return (path, file)
        }
        guard let found else { return try await plain(responder, .notFound) }
        try await send(found.file, found.path, request, responder)
    }

    private func send(
        _ file: OpenFile, _ path: String, _ request: HTTPRequest, _ responder: HTTP3Responder
    ) async throws {
        let size = file.size
        var fields: HTTPFields = [
            .contentType: FileTree.contentType(path), .acceptRanges: "bytes", .xContentTypeOptions: "nosniff",
        ]
        var part = 0..<size
        var status = HTTPResponse.Status.ok
        switch request.headerFields[.range].map({ ByteRange.parse($0, size: size) }) {
        case .unsatisfiable?:
            return try await plain(responder, .rangeNotSatisfiable, [.contentRange: "bytes */\(size)"])
        case .part(let range)?:
            part = range
            status = .partialContent
            fields[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)"
        case .whole?, nil: break
        }
        fields[.contentLength] = "\(part.count)"
        let head = HTTPResponse(status: status, headerFields: fields)
        guard request.method == .get, !part.isEmpty else { return try await responder.respond(head) }
        let writer = try await responder.start(head)
        var offset = part.lowerBound
        while offset < part.upperBound {
            let (start, count) = (offset, Int(min(Self.pieceSize, part.upperBound - offset)))
            let piece = try await threads.runIfActive { try file.read(from: start, count: count) }
            // A file that became shorter meanwhile: the client must not take this for all of it.
            guard piece.readableBytes > 0 else { return responder.cancel(code: .internalError) }
            try await writer.write(piece)
            offset += Int64(piece.readableBytes)
        }
        try await writer.finish()
    }

    private func plain(
        _ responder: HTTP3Responder, _ status: HTTPResponse.Status, _ more: HTTPFields = [:]
    ) async throws {
        let text = "\(status.code) \(status.reasonPhrase)\n"
        var fields = more
        fields[.contentType] = "text/plain; charset=utf-8"
        fields[.contentLength] = "\(text.utf8.count)"
        try await responder.respond(HTTPResponse(status: status, headerFields: fields), body: ByteBuffer(string: text))
    }
}

/// What a Range field asks for. Several ranges, and what isn't understood, count as none.
enum ByteRange: Equatable {
    case whole
    case part(Range<Int64>)
    case unsatisfiable

    static func parse(_ text: String, size: Int64) -> ByteRange {
        guard text.hasPrefix("bytes="), !text.contains(",") else { return .whole }
        let ends = text.dropFirst(6).split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard ends.count == 2 else { return .whole }
        if ends[0].isEmpty {
            guard let count = Int64(ends[1]), count >= 0 else { return .whole }
            return count == 0 || size == 0 ? .unsatisfiable : .part(max(0, size - count)..<size)
        }
        guard let first = Int64(ends[0]), first >= 0 else { return .whole }
        let last = ends[1].isEmpty ? size - 1 : Int64(ends[1])
        guard let last, last >= first || ends[1].isEmpty else { return .whole }
        return first >= size ? .unsatisfiable : .part(first..<min(last, size - 1) + 1)
    }
}
