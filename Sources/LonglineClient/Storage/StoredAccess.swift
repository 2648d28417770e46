public import LonglineWire

/// The control layer's last answer, as it is kept for the time when none comes.
public struct StoredAccess: Hashable, Sendable {
    /// The largest answer that is taken, in bytes.
    public static let maximumAnswer = 64 * 1024

    /// What it said, in JSON. It holds no secret.
    public var answer: [UInt8]
    /// The ``ControlService/url`` of who said it.
    public var control: String
    /// For whom it was said, where the token told; it is of no use to another user.
    public var user: UserID?
    /// When it came: this device's wall clock, milliseconds since 1970.
    public var receivedAt: UInt64

    /// A stored answer.
    public init(answer: [UInt8], control: String, user: UserID?, receivedAt: UInt64) {
        self.answer = answer
        self.control = control
        self.user = user
        self.receivedAt = receivedAt
    }
}

/// How a control service was reached last, so that the next question takes the way that works.
public struct StoredControlRoute: Hashable, Sendable {
    /// The service's ``ControlService/url``.
    public var url: String
    /// The UDP port of HTTP/3 that the service announced (`Alt-Svc`); nil when it announced none.
    public var http3Port: Int?
    /// HTTPS is tried first until then, because HTTP/3 did not get through: wall clock, milliseconds since 1970; 0 for never.
    public var httpsFirstUntil: UInt64

    /// A stored route.
    public init(url: String, http3Port: Int? = nil, httpsFirstUntil: UInt64 = 0) {
        self.url = url
        self.http3Port = http3Port
        self.httpsFirstUntil = httpsFirstUntil
    }

    /// What can't be true counts as not known.
    var isSound: Bool { http3Port.map { (1...65_535).contains($0) } ?? true }
}
