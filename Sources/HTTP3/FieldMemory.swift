internal import HTTPTypes

/// What a peer said before on its connection: most of its messages have most lines and the authority in common. What is remembered
/// needs neither a check nor memory of its own.
struct FieldMemory {
    private struct Line {
        let name: HTTPField.Name
        /// What identifies people isn't kept for longer than its message.
        let isSecret: Bool
        var field: HTTPField?
    }

    /// Lines that are remembered, and the longest value.
    private static let capacity = 32
    private static let longestValue = 128
    /// nghttp3 numbers names by the static table's lines (RFC 9204 appendix A), and some others from 1000 on.
    private static let staticNames = 99
    private static let otherNames = 1000..<1029

    /// For each number of a name one more than its place in `lines`; 0: none.
    private var places: [UInt8] = []
    private var lines: [Line] = []
    private var authority = ""

    private static func index(_ token: Int32) -> Int? {
        let token = Int(token)
        if (0..<staticNames).contains(token) { return token }
        return otherNames.contains(token) ? staticNames + token - otherNames.lowerBound : nil
    }

    private func place(_ token: Int32) -> Int? {
        guard let index = Self.index(token), index < places.count, places[index] > 0 else { return nil }
        return Int(places[index]) - 1
    }

    /// A line that was remembered, if it is the same.
    func field(_ token: Int32, value: UnsafeBufferPointer<UInt8>) -> HTTPField? {
        guard let place = place(token), let field = lines[place].field else { return nil }
        let isSame = field.withUnsafeBytesOfValue { $0.count == value.count && $0.elementsEqual(value) }
        return isSame ? field : nil
    }

    /// A field's name; nil: it can't be one.
    mutating func name(_ token: Int32, _ bytes: UnsafeBufferPointer<UInt8>) -> HTTPField.Name? {
        if let place = place(token) { return lines[place].name }
        guard let name = HTTPField.Name(parsed: String(decoding: bytes, as: UTF8.self)) else { return nil }
        if let index = Self.index(token), lines.count < Self.capacity {
            if places.isEmpty { places = Array(repeating: 0, count: Self.staticNames + Self.otherNames.count) }
            lines.append(Line(name: name, isSecret: Self.isSecret(name)))
            places[index] = UInt8(lines.count)
        }
        return name
    }

    /// Remembers a line that says nothing but itself: one whose name means nothing to HTTP, so that it needn't be judged again.
    mutating func remember(_ field: HTTPField, _ token: Int32, length: Int) {
        guard length <= Self.longestValue, let place = place(token), !lines[place].isSecret else { return }
        lines[place].field = field
    }

    private static func isSecret(_ name: HTTPField.Name) -> Bool {
        name == .authorization || name == .cookie || name == .setCookie || name == .proxyAuthorization
    }

    /// An authority, in the memory of the last one if it is the same.
    mutating func authority(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
        let isSame = authority.utf8.withContiguousStorageIfAvailable {
            $0.count == bytes.count && $0.elementsEqual(bytes)
        }
        if isSame != true { authority = String(decoding: bytes, as: UTF8.self) }
        return authority
    }
}
