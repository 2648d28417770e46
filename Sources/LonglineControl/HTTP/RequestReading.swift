import Foundation
import HTTP3
import HTTPTypes
import Hummingbird
import LonglineServer
import LonglineWire
import NIOCore

/// The largest whole number that every JSON reader has exactly.
let maximumNumber: UInt64 = (1 << 53) - 1

/// What routes read of a request, and how long and large it may be.
struct RequestReader: Sendable {
    /// The largest body, in bytes, unless a route says otherwise.
    static let standardBody = 64 * 1024

    /// How long a body may take to come.
    let bodyTimeout: Duration

    /// Reads a JSON body.
    /// - Throws: ``Problem`` when it is too large or too slow, of another type, or not as it should be.
    func json<Value: RequestBodyMembers>(
        _ type: Value.Type, _ request: Request, limit: Int = standardBody
    ) async throws(Problem) -> (value: Value, bytes: ByteBuffer) {
        let bytes = try await body(request, limit: limit)
        return (try ControlJSON.decode(type, from: bytes), bytes)
    }

    /// Reads a JSON body that need not be there.
    /// - Returns: nil when there is none.
    /// - Throws: as ``json(_:_:limit:)``; also for a body that does not say what it is, as it would be passed over.
    func optionalJSON<Value: RequestBodyMembers>(
        _ type: Value.Type, _ request: Request
    ) async throws(Problem) -> Value? {
        if request.headers[.contentType] != nil { return try await json(type, request).value }
        let bytes = try await collect(request, limit: Self.standardBody)
        guard bytes.readableBytes == 0 else { throw Self.notJSON }
        return nil
    }

    private static let notJSON = Problem(.unsupportedMediaType, "Content-Type has to be application/json")

    /// Reads a body that has to be JSON.
    func body(_ request: Request, limit: Int) async throws(Problem) -> ByteBuffer {
        let type = request.headers[.contentType]?.split(separator: ";").first?.lowercased()
        guard type?.filter({ $0 != " " }) == "application/json" else { throw Self.notJSON }
        return try await collect(request, limit: limit)
    }

    private func collect(_ request: Request, limit: Int) async throws(Problem) -> ByteBuffer {
        let tooLarge = Problem(.bodyTooLarge, "at most \(limit) bytes")
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit { throw tooLarge }
        do {
            return try await withDeadline(bodyTimeout) { try await request.body.collect(upTo: limit) }
        } catch is DeadlineExceeded {
            throw Problem(.bodyTimeout)
        } catch is NIOTooManyBytesError {
            throw tooLarge
        } catch let error as HTTP3Error where error.code == .timeout {
            throw Problem(.bodyTimeout)
        } catch let error as HTTP3Error where error.code == .fieldSectionTooLarge {
            throw Problem(.headersTooLarge, "the trailer section is too large")
        } catch {
            throw Problem(.invalidRequest, "the body did not come to its end", cause: error)
        }
    }
}

extension ControlContext {
    /// A path parameter, decoded and checked.
    func parameter<Value>(
        _ name: String, _ read: (String) throws(IdentifierError) -> Value
    ) throws(Problem) -> Value {
        guard let text = parameters.get(name)?.removingPercentEncoding else {
            throw Problem(.invalidRequest, "'\(name)' in the path is not percent-encoded UTF-8")
        }
        return try checked(name, text, read)
    }
}

extension ControlContext {
    /// A channel in the path: `room:hall`, or `room%2Fhall`, which not every proxy leaves alone.
    func channel(_ name: String) throws(Problem) -> ChannelID {
        try parameter(name) { text throws(IdentifierError) in
            guard let colon = text.firstIndex(of: ":"), !text.contains("/") else { return try ChannelID(text) }
            return try ChannelID(text[..<colon] + "/" + text[text.index(after: colon)...])
        }
    }
}

/// Checks a name that the caller gave.
func checked<Value>(
    _ name: String, _ text: String, _ read: (String) throws(IdentifierError) -> Value
) throws(Problem) -> Value {
    do { return try read(text) } catch {
        switch error {
        case .empty: throw Problem(.invalidRequest, "'\(name)' is empty")
        case .tooLong(let limit): throw Problem(.invalidRequest, "'\(name)' has more than \(limit) bytes")
        case .forbiddenByte:
            throw Problem(.invalidRequest, "'\(name)' has a character that is not A-Z a-z 0-9 . _ ~ @ + -")
        case .unknownKind: throw Problem(.invalidRequest, "'\(name)' is none of user/…, room/… and all/…")
        }
    }
}

extension Request {
    /// A query parameter; nil when it is absent.
    /// - Parameter plus: what a plus sign that is not encoded stands for: a space, as forms write it.
    /// - Throws: ``Problem`` when it is there twice, or not percent-encoded.
    func query(_ name: String, plus: Character = " ") throws(Problem) -> String? {
        var found: String?
        for pair in queryPairs where pair.name == name {
            guard found == nil else { throw Problem(.invalidRequest, "'\(name)' is there more than once") }
            guard let value = Self.decoded(pair.value, plus: plus) else {
                throw Problem(.invalidRequest, "'\(name)' is not percent-encoded")
            }
            found = value
        }
        return found
    }

    /// A name in the query, or what begins behind one; nil when it is absent. Names have plus signs and no spaces, so that a plus sign
    /// is meant, though it should be encoded.
    /// - Throws: as ``query(_:plus:)``.
    func queryName(_ name: String) throws(Problem) -> String? { try query(name, plus: "+") }

    /// Refuses a query with other parameters than these: where one says less of what is to be done, one that is misspelt says more.
    func requireQuery(only names: Set<String>) throws(Problem) {
        for pair in queryPairs {
            guard let name = pair.name, names.contains(name) else {
                let known = names.sorted().joined(separator: ", ")
                throw Problem(.invalidRequest, "the query has a parameter other than \(known)")
            }
        }
    }

    /// Names as they are meant, nil for one that is not percent-encoded, and values as they stand there.
    private var queryPairs: [(name: String?, value: Substring)] {
        (uri.query ?? "").split(separator: "&").map { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (Self.decoded(parts[0], plus: " "), parts.count > 1 ? parts[1] : "")
        }
    }

    private static func decoded(_ text: Substring, plus: Character) -> String? {
        String(text.map { $0 == "+" ? plus : $0 }).removingPercentEncoding
    }

    /// A whole number within limits; `standard` when it is absent.
    func query(_ name: String, in range: ClosedRange<Int>, standard: Int) throws(Problem) -> Int {
        guard let text = try query(name) else { return standard }
        guard let number = Int(text), range.contains(number) else {
            throw Problem(.invalidRequest, "'\(name)' has to be \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// The credential of `Authorization: Bearer`.
    var bearer: String? {
        guard let text = headers[.authorization] else { return nil }
        let parts = text.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        return String(parts[1].drop { $0 == " " })
    }
}
