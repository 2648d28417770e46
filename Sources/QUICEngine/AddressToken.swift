/// What a client keeps of a NEW_TOKEN frame: a token is of no use in another version than its connection's (RFC 9369 section
/// 5), so one of another version than 1 goes with its number.
enum AddressToken {
    /// Too long for a server's token to begin with it by chance.
    private static let mark = Array("longline token of version".utf8)

    static func keep(_ token: [UInt8], version: QUICVersion) -> [UInt8] {
        guard version != .v1 else { return token }
        var writer = ByteWriter()
        writer.append(contentsOf: mark)
        writer.append(UInt64(version.rawValue))
        return writer.bytes + token
    }

    /// The server's own bytes; nil: not for this version.
    static func use(_ kept: [UInt8], version: QUICVersion) -> [UInt8]? {
        guard kept.starts(with: mark) else { return version == .v1 ? kept : nil }
        var reader = ByteReader(Array(kept[mark.count...]))
        guard let number = reader.uint64(), number == UInt64(version.rawValue) else { return nil }
        return Array(kept[(mark.count + 8)...])
    }
}
