import Foundation
import HTTP3
import HTTPTypes
import NIOCore
import NIOPosix

/// Answers GET and HEAD with files, whole or one range of them (RFC 9110 section 14), on conditions of the client's (section 13).
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
        let (size, tag) = (file.size, file.tag)
        if let list = request.headerFields[.ifMatch], !tag.isNamed(in: list, weakly: false) {
            return try await plain(responder, .preconditionFailed)
        }
        if let list = request.headerFields[.ifNoneMatch], tag.isNamed(in: list, weakly: true) {
            return try await responder.respond(HTTPResponse(status: .notModified, headerFields: [.eTag: tag.text]))
        }
        var fields: HTTPFields = [
            .contentType: FileTree.contentType(path), .acceptRanges: "bytes", .eTag: tag.text,
            .xContentTypeOptions: "nosniff",
        ]
        var part = 0..<size
        var status = HTTPResponse.Status.ok
        switch wanted(request, file) {
        case .unsatisfiable:
            return try await plain(responder, .rangeNotSatisfiable, [.contentRange: "bytes */\(size)"])
        case .part(let range):
            part = range
            status = .partialContent
            fields[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)"
        case .whole: break
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

    /// Only GET has ranges (RFC 9110 section 14.2), and those of a file that has changed fit no part that the client has
    /// (section 13.1.5).
    private func wanted(_ request: HTTPRequest, _ file: OpenFile) -> ByteRange {
        guard request.method == .get, let text = request.headerFields[.range] else { return .whole }
        if let known = request.headerFields[.ifRange], known != file.tag.text { return .whole }
        return ByteRange.parse(text, size: file.size)
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
            guard let count = number(ends[1]) else { return .whole }
            return count == 0 || size == 0 ? .unsatisfiable : .part(max(0, size - count)..<size)
        }
        guard let first = number(ends[0]) else { return .whole }
        let last = ends[1].isEmpty ? size - 1 : number(ends[1])
        guard let last, last >= first || ends[1].isEmpty else { return .whole }
        return first >= size ? .unsatisfiable : .part(first..<min(last, size - 1) + 1)
    }

    /// Digits alone: numbers of Swift may have a sign.
    private static func number(_ text: Substring) -> Int64? {
        text.utf8.allSatisfy { (48...57).contains($0) } ? Int64(text) : nil
    }
}
