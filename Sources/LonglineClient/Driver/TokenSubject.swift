import Foundation
import LonglineWire

/// Reads the user out of a signed token (JWT, RFC 7519) without verifying it.
///
/// It only names this device's own inbox; the service verifies the token and refuses what doesn't belong to it.
enum TokenSubject {
    private struct Claims: Decodable {
        var sub: String
    }

    static func read(from token: String) -> UserID? {
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3 else { return nil }
        var text = parts[1].replacingOccurrences(of: "-", with: "+").replacingOccurrences(of: "_", with: "/")
        while text.count % 4 != 0 { text += "=" }
        guard let data = Data(base64Encoded: text),
            let claims = try? JSONDecoder().decode(Claims.self, from: data)
        else { return nil }
        return try? UserID(claims.sub)
    }
}
