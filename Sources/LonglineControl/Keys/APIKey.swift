import Crypto
import Foundation
import LonglineServer
public import LonglineWire

/// What an API key may be used for.
public enum APIKeyRight: String, Hashable, Sendable, CaseIterable {
    /// Issue tokens, for any user of the tenant.
    case tokens
    /// Revoke tokens, devices and users.
    case revoke
    /// Erase accounts of users.
    case erase
    /// Publish into the tenant's channels.
    case publish
    /// Read the tenant's channels.
    case history
    /// Retract messages of the tenant's channels, whoever wrote them.
    case retract
    /// See, change and delete the tenant's rooms.
    case rooms
    /// See and end sessions; without a tenant also nodes and figures.
    case operate
}

/// What is known of an API key: never the key.
public struct APIKeyInfo: Hashable, Sendable {
    /// Names it in lists and logs: 16 hexadecimal digits, which say nothing about the key.
    public var id: String
    /// The tenant whose key it is; nil: an operator's, for all tenants and nodes.
    public var tenant: TenantID?
    /// What it may be used for.
    public var rights: Set<APIKeyRight>
    /// What its owner calls it; at most 128 bytes.
    public var label: String
    /// When it was made, in milliseconds since 1970.
    public var created: UInt64
    /// When it was revoked; nil: it is good.
    public var revoked: UInt64?
}

/// A key's text: 256 random bits, of which only the hash is kept.
struct APIKeySecret {
    static let prefix = "llk_"
    let text: String

    static func generate() -> APIKeySecret {
        let bytes = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
        return APIKeySecret(text: prefix + Base64URL.encode(bytes))
    }

    /// SHA-256 is enough: there is nothing to guess about 256 random bits.
    static func hash(_ text: String) -> [UInt8] { Array(SHA256.hash(data: Data(text.utf8))) }

    /// From the hash, so that whoever has no key can't name one.
    static func id(ofHash hash: [UInt8]) -> String {
        hash.prefix(8).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Takes the same time wherever two hashes differ.
    static func areEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
        guard one.count == other.count else { return false }
        return zip(one, other).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
