import Foundation
import LonglineKeys
package import LonglineWire

/// Reads user and device out of a signed token (JWT, RFC 7519) without verifying it.
///
/// They name this device's own inbox, and tell a token that is not for what is stored; the service verifies it and refuses what doesn't
/// belong to it.
package enum TokenSubject {
    private struct Claims: Decodable {
        var sub: String
    }

    private struct DeviceClaim: Decodable {
        var device: String
    }

    /// The user that a token names; nil where it can't be read.
    package static func read(from token: String) -> UserID? {
        guard let claims = UnverifiedToken.read(Claims.self, from: token) else { return nil }
        return try? UserID(claims.sub)
    }

    /// The device that a token names; nil where it can't be read.
    package static func device(from token: String) -> DeviceID? {
        guard let claims = UnverifiedToken.read(DeviceClaim.self, from: token) else { return nil }
        return try? DeviceID(claims.device)
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
