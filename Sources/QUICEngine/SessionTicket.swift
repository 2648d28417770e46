/// What a client keeps of a connection to return faster: the TLS session and the transport limits it may use in 0-RTT
/// (RFC 9000 section 7.4.1). It holds secrets: store it as carefully as a key. It serves one server name, and only a client that
/// checks servers as the one did that got it, and shows the same certificate: neither is shown or checked again.
public struct SessionTicket: Sendable, Hashable {
    /// The serialized form.
    public let bytes: [UInt8]
    /// When the server stops accepting it, in seconds since 1970 on the wall clock (the TLS library's); seven days after it came
    /// at the latest, whatever the server says.
    public let expiresAt: UInt64

    let session: [UInt8]
    let transportParameters: [UInt8]
    let serverName: String
    let applicationProtocol: String
    /// The QUIC version it was given in; it is of no use in another (RFC 9369 section 5).
    let version: QUICVersion

    /// ``ClientConfiguration/ticketHolder`` of the client that got it.
    let holder: [UInt8]

    private static let format: UInt8 = 3

    init(
        session: [UInt8], transportParameters: [UInt8], serverName: String, applicationProtocol: String,
        expiresAt: UInt64, holder: [UInt8], version: QUICVersion = .v1
    ) {
        self.session = session
        self.transportParameters = transportParameters
        self.serverName = serverName
        self.applicationProtocol = applicationProtocol
        self.expiresAt = expiresAt
        self.holder = holder
        self.version = version
        var writer = ByteWriter()
        writer.append(Self.format)
        writer.append(UInt64(version.rawValue))
        writer.append(expiresAt)
        writer.append(lengthPrefixed: holder)
        writer.append(lengthPrefixed: Array(serverName.utf8))
        writer.append(lengthPrefixed: Array(applicationProtocol.utf8))
        writer.append(lengthPrefixed: transportParameters)
        writer.append(lengthPrefixed: session)
        bytes = writer.bytes
    }

    /// Reads what `bytes` returned earlier. Throws `malformed` for anything else.
    public init(bytes: [UInt8]) throws(QUICError) {
        var reader = ByteReader(bytes)
        guard reader.byte() == Self.format, let number = reader.uint64().flatMap({ UInt32(exactly: $0) }),
            let expiresAt = reader.uint64(), let holder = reader.lengthPrefixed(),
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
        self.holder = holder
        self.session = session
        self.transportParameters = parameters
        self.serverName = String(decoding: server, as: UTF8.self)
        self.applicationProtocol = String(decoding: name, as: UTF8.self)
    }
}
