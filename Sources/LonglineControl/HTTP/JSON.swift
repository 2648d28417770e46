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
    static var noContent: Response {
        var response = Response(status: .noContent)
        // RFC 9110 section 8.6: it has no length, not even 0.
        response.headers[.contentLength] = nil
        return response
    }
}

/// A body of a request, which is an object. A member that is not known is refused, as is one that is null, or there twice: what was
/// misspelt would be done as if it had not been said.
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
        // JSON has no zero bytes, but in UTF-16 and UTF-32, which the reader would take.
        guard !body.readableBytesView.contains(0), String(validating: body.readableBytesView, as: UTF8.self) != nil
        else { throw Problem(.invalidRequest, "the body is not JSON in UTF-8") }
        do {
            let members = try JSONDecoder().decode([String: Presence].self, from: Data(body.readableBytesView))
            isJSON = true
            guard let count = memberCount(body) else { throw Problem(.invalidRequest, "the body is not JSON") }
            // The reader takes the first, others the last: who checked the body before may have seen another.
            guard count == members.count else {
                throw Problem(.invalidRequest, "the body has a member more than once")
            }
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

    /// How often the object of a body, which the reader takes for JSON, names a member.
    /// - Returns: nil for what is none: the reader takes a comma in front of a closing bracket.
    private static func memberCount(_ body: ByteBuffer) -> Int? {
        var (count, depth) = (0, 0)
        var (isText, isEscaped) = (false, false)
        var last = UInt8(0)
        for byte in body.readableBytesView {
            switch byte {
            case _ where isEscaped: isEscaped = false
            case UInt8(ascii: "\\") where isText: isEscaped = true
            case UInt8(ascii: "\""): isText.toggle()
            case _ where isText: break
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard last != UInt8(ascii: ",") else { return nil }
                depth -= 1
            case 0x20, 0x09, 0x0A, 0x0D: continue
            case UInt8(ascii: ":") where depth == 1: count += 1
            default: break
            }
            last = byte
        }
        return count
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

    /// - Parameter isJSON: whether it was read as JSON before. The reader does not say what it can't take.
    private static func describe(_ error: DecodingError, isJSON: Bool) -> String {
        func place(_ path: [any CodingKey]) -> String {
            path.isEmpty ? "the body" : "'" + path.map { written($0.stringValue) }.joined(separator: ".") + "'"
        }
        switch error {
        case .keyNotFound(let key, let context): return "\(place(context.codingPath + [key])) is missing"
        case .typeMismatch(_, let context): return "\(place(context.codingPath)) has another type than it should"
        case .valueNotFound(_, let context): return "\(place(context.codingPath)) is null"
        case .dataCorrupted(let context) where context.codingPath.isEmpty:
            return isJSON
                ? "the body has a number or a text that is not allowed where it stands" : "the body is not JSON"
        case .dataCorrupted(let context): return "\(place(context.codingPath)) has a value that is not allowed"
        @unknown default: return "the body is not JSON of the expected form"
        }
    }
}
