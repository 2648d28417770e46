import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore

extension Response {
    /// An answer in JSON.
    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) -> Response {
        do {
            return json(try ControlJSON.encode(value), status: status)
        } catch {
            preconditionFailure("the answers' types can be encoded: \(error)")
        }
    }

    /// An answer that is JSON already.
    static func json(_ bytes: Data, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    /// An answer without content.
    static var noContent: Response { Response(status: .noContent) }
}

/// A body of a request, which is an object. A member that is not known is refused, as is one that is null: what was misspelt would
/// be done as if it had not been said.
protocol RequestBodyMembers: Decodable {
    /// The names of all members, as they stand in the JSON.
    static var members: Set<String> { get }
}

/// JSON as this service writes and reads it.
enum ControlJSON {
    static func encode(_ value: some Encodable) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return try encoder.encode(value)
    }

    static var decoder: JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }

    /// Reads a body.
    /// - Throws: ``Problem`` that names the member that is wrong.
    static func decode<Value: RequestBodyMembers>(
        _ type: Value.Type, from body: ByteBuffer
    ) throws(Problem) -> Value {
        var isJSON = false
        do {
            let members = try JSONDecoder().decode([String: Presence].self, from: Data(body.readableBytesView))
            isJSON = true
            for (name, presence) in members.sorted(by: { $0.key < $1.key }) {
                guard Value.members.contains(name) else {
                    throw Problem(.invalidRequest, "the body has a member that is not known here")
                }
                guard !presence.isNull else { throw Problem(.invalidRequest, "'\(name)' is null") }
            }
            return try decoder.decode(type, from: Data(body.readableBytesView))
        } catch let error as DecodingError {
            throw Problem(.invalidRequest, describe(error, isJSON: isJSON))
        } catch let error as Problem {
            throw error
        } catch {
            throw Problem(.invalidRequest, "the body is not JSON of the expected form")
        }
    }

    /// Whether a member has a value.
    private struct Presence: Decodable {
        let isNull: Bool

        init(from decoder: any Decoder) throws { isNull = try decoder.singleValueContainer().decodeNil() }
    }

    /// A member's name as it stands in the JSON.
    private static func written(_ name: String) -> String {
        name.reduce(into: "") { $0 += $1.isUppercase ? "_" + $1.lowercased() : String($1) }
    }

    /// - Parameter isJSON: whether it was read as JSON before. The reader does not say which number it can't take.
    private static func describe(_ error: DecodingError, isJSON: Bool) -> String {
        func place(_ path: [any CodingKey]) -> String {
            path.isEmpty ? "the body" : "'" + path.map { written($0.stringValue) }.joined(separator: ".") + "'"
        }
        switch error {
        case .keyNotFound(let key, let context): return "\(place(context.codingPath + [key])) is missing"
        case .typeMismatch(_, let context): return "\(place(context.codingPath)) has another type than it should"
        case .valueNotFound(_, let context): return "\(place(context.codingPath)) is null"
        case .dataCorrupted(let context) where context.codingPath.isEmpty:
            return isJSON ? "the body has a number that is not allowed where it stands" : "the body is not JSON"
        case .dataCorrupted(let context): return "\(place(context.codingPath)) has a value that is not allowed"
        @unknown default: return "the body is not JSON of the expected form"
        }
    }
}
