/// What the control layer, which signs access configurations, and the client library, which verifies them, have to agree on.
package enum AccessStatement {
    /// The `typ` of the signature, which no token has.
    package static let type = "longline-access+json"
    /// The most access points of an answer: a client takes no more of them, and no answer of more than 64 KiB.
    package static let maximumPoints = 16
    /// How long a question's nonce is, in characters.
    package static let nonceLength = 16...64

    /// Whether a question may have this nonce: letters, digits, `-` and `_`, which stand in a URL as they are.
    package static func isNonce(_ text: String) -> Bool {
        nonceLength.contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }
}
