public import LonglineWire

extension RefusalCode {
    /// What it means, for people.
    public var explanation: String {
        switch self {
        case .unknownChannel: "no such channel, or not a member of it"
        case .forbidden: "the token, the room's settings or the app's own rules do not allow it"
        case .payloadTooLarge: "the payload is over the limit"
        case .storageFull: "the service's store is full"
        case .overloaded: "the service has too much to do, or can't decide now"
        case .expired: "its time to live was over"
        case .unknownRecipient: "the message names no recipient, or one where there is none"
        case .unknownTarget: "what it names is not there any more, or never was"
        case .invalidTarget: "what it names can't be named so by this user"
        case .blocked: "this user blocked the recipient"
        case .tooMany: "there are as many as there may be"
        default: "code \(rawValue)"
        }
    }
}
