/// What a client keeps of a connection to return faster: the TLS session and the transport limits it may use in 0-RTT
/// (RFC 9000 section 7.4.1). It holds secrets: store it as carefully as a key. It serves one server name.
public struct SessionTicket: Sendable, Hashable {
    /// The serialized form: version, expiry, TLS session, transport parameters.
    public let bytes: [UInt8]
    /// When the server stops accepting it, in seconds since 1970 on the wall clock (the TLS library's).
    public let expiresAt: UInt64

    let session: [UInt8]
    let transportParameters: [UInt8]
    let serverName: String
    let applicationProtocol: String
    /// The QUIC version it was given in; it is of no use in another (RFC 9369 section 5).
    let version: QUICVersion

    /// The format of tickets of QUIC version 1, and of others.
    private static let formats: (plain: UInt8, versioned: UInt8) = (1, 2)

    init(
        session: [UInt8], transportParameters: [UInt8], serverName: String, applicationProtocol: String,
        expiresAt: UInt64, version: QUICVersion = .v1
    ) {
        self.session = session
        self.transportParameters = transportParameters
        self.serverName = serverName
        self.applicationProtocol = applicationProtocol
        self.expiresAt = expiresAt
        self.version = version
        var writer = ByteWriter()
        writer.append(version == .v1 ? Self.formats.plain : Self.formats.versioned)
        if version != .v1 { writer.append(UInt64(version.rawValue)) }
        writer.append(expiresAt)
        writer.append(lengthPrefixed: Array(serverName.utf8))
        writer.append(lengthPrefixed: Array(applicationProtocol.utf8))
        writer.append(lengthPrefixed: transportParameters)
        writer.append(lengthPrefixed: session)
        bytes = writer.bytes
    }

    /// Reads what `bytes` returned earlier. Throws `malformed` for anything else.
    public init(bytes: [UInt8]) throws(QUICError) {
        var reader = ByteReader(bytes)
        let format = reader.byte()
        let version: UInt64? =
            switch format {
            case Self.formats.plain: UInt64(QUICVersion.v1.rawValue)
            case Self.formats.versioned: reader.uint64()
            default: nil
            }
        guard let number = version.flatMap({ UInt32(exactly: $0) }), let expiresAt = reader.uint64(),
            let server = reader.lengthPrefixed(), let name = reader.lengthPrefixed(),
            let parameters = reader.lengthPrefixed(),
            let session = reader.lengthPrefixed(), reader.isAtEnd
        else {
            throw QUICError(
                .malformed, "The stored session ticket can't be read",
                advice: "Drop it and connect without a ticket.")
        }
        self.bytes = bytes
        self.version = QUICVersion(rawValue: number)
        self.expiresAt = expiresAt
        self.session = session
        self.transportParameters = parameters
        self.serverName = String(decoding: server, as: UTF8.self)
        self.applicationProtocol = String(decoding: name, as: UTF8.self)
    }
}
