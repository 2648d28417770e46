import Foundation
import LonglineKeys
package import LonglineWire

/// Reads the user out of a signed token (JWT, RFC 7519) without verifying it.
///
/// It only names this device's own inbox; the service verifies the token and refuses what doesn't belong to it.
package enum TokenSubject {
    private struct Claims: Decodable {
        var sub: String
    }

    /// The user that a token names; nil where it can't be read.
    package static func read(from token: String) -> UserID? {
        guard let claims = UnverifiedToken.read(Claims.self, from: token) else { return nil }
        return try? UserID(claims.sub)
    }
}

/// What a token says, as nobody verified it.
enum UnverifiedToken {
    static func read<Claims: Decodable>(_ type: Claims.Type, from token: String) -> Claims? {
        let parts = token.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let data = Base64URL.decode(parts[1]) else { return nil }
        return try? JSONDecoder().decode(Claims.self, from: data)
    }
}
