import LonglineWire

/// The close that an operator has sessions ended with.
package enum OperatorClose {
    /// Codes of the session protocol.
    package static let codes = 1_000...5_999
    /// The longest reason, in characters: of whatever bytes, a close holds it.
    package static let maximumReason = 64
    /// What devices are told where the operator says nothing.
    package static let standardReason = "an operator ended the session"

    /// What is wrong with a reason; nil for nothing. It ends up in others' logs and terminals.
    package static func objection(toReason reason: String) -> String? {
        guard reason.unicodeScalars.count <= maximumReason else { return "has at most \(maximumReason) characters" }
        guard reason.unicodeScalars.allSatisfy(isPlain) else { return "has no control characters" }
        return nil
    }

    /// Whether a character is one of a line.
    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: false
        default: !scalar.properties.isBidiControl
        }
    }
}
