/// A control layer that is asked where to connect, and how (`GET /v1/access`, see `docs/control.md`).
public struct ControlService: Hashable, Sendable {
    /// Its address: `https://host` or `https://host:port`, without a path; port 443 unless given.
    public var url: String
    /// The UDP port of HTTP/3. nil: the one that its answers announce (`Alt-Svc`), and the URL's own before the first.
    public var http3Port: Int?
    /// The name the certificate must carry, when it isn't the URL's host.
    public var serverName: String?

    /// A control layer; the configuration's ``LonglineClient/LonglineClient/Configuration/trust`` holds for it over HTTP/3 as over
    /// HTTPS, and ``LonglineClient/LonglineClient/Configuration/controlKeys`` for what it says.
    public init(url: String, http3Port: Int? = nil, serverName: String? = nil) {
        self.url = url
        self.http3Port = http3Port
        self.serverName = serverName
    }
}

/// How the control layer was asked.
public enum ControlTransport: String, Hashable, Sendable {
    /// HTTP/3, over QUIC.
    case http3
    /// HTTP/1.1 with TLS, over TCP.
    case https
}

/// Where a client's access points come from.
public enum AccessSource: Hashable, Sendable {
    /// The control layer's answer, within its lifetime.
    case answer
    /// The control layer's last answer, whose lifetime is over: none has come since.
    case lastAnswer
    /// The configuration's own ``LonglineClient/LonglineClient/Configuration/accessPoints``.
    case fixed
}
