package import FoundationEssentials

/// Base64 with the alphabet for URLs and without padding (RFC 4648 section 5, RFC 7515 section 2).
package enum Base64URL {
    /// - Returns: nil unless ``isCanonical(_:)``.
    package static func decode(_ text: some BidirectionalCollection<UInt8>) -> Data? {
        guard isCanonical(text) else { return nil }
        var standard = text.map { (byte: UInt8) -> UInt8 in
            switch byte {
            case UInt8(ascii: "-"): UInt8(ascii: "+")
            case UInt8(ascii: "_"): UInt8(ascii: "/")
            default: byte
            }
        }
        while standard.count % 4 != 0 { standard.append(UInt8(ascii: "=")) }
        return Data(base64Encoded: Data(standard))
    }

    /// Whether a text is the one spelling of its bytes: padding, the other alphabet, or bits behind the last byte would give
    /// what is signed further spellings.
    static func isCanonical(_ text: some BidirectionalCollection<UInt8>) -> Bool {
        guard text.allSatisfy({ value(of: $0) != nil }) else { return false }
        guard let last = text.last.flatMap(value(of:)) else { return true }
        return switch text.count % 4 {
        case 0: true
        case 2: last % 16 == 0
        case 3: last % 4 == 0
        default: false
        }
    }

    private static func value(of character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): character - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): character - UInt8(ascii: "a") + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0") + 52
        case UInt8(ascii: "-"): 62
        case UInt8(ascii: "_"): 63
        default: nil
        }
    }

    package static func encode(_ bytes: Data) -> String {
        String(
            bytes.base64EncodedString().compactMap { character -> Character? in
                switch character {
                case "+": "-"
                case "/": "_"
                case "=": nil
                default: character
                }
            })
    }
}
