public import LonglineWire

/// What a session may be allowed to do with a channel.
public enum ChannelAction: UInt8, Hashable, Sendable, CaseIterable {
    /// Publish into it. Into a user's inbox: send that user a direct message.
    case publish = 1
    /// Be sent its entries.
    case receive = 2
    /// Join it. Leaving takes no right.
    case join = 4
    /// Change it as its owner.
    case manage = 8
    /// Of a user's inbox: be told of the user's presence.
    case presence = 16
}

/// A set of channels: one channel by its name, or all whose name begins alike. As text `user/`, `room/` or `all/`, then the
/// name or its beginning and one `*`: `room/team-*`, `user/bob`, `all/*`.
///
/// The star stands at the end only, so that a match is one comparison of at most ``maximumLength`` bytes.
public struct ChannelPattern: Hashable, Sendable, CustomStringConvertible {
    /// The longest pattern, in bytes of its text.
    public static let maximumLength = 69

    private enum Kind: String { case user, room, all }
    private let kind: Kind
    private let name: String
    private let isPrefix: Bool

    /// Reads a pattern.
    /// - Returns: nil for a text that is none.
    public init?(_ text: some StringProtocol) {
        guard text.utf8.count <= Self.maximumLength, let slash = text.firstIndex(of: "/") else { return nil }
        guard let kind = Kind(rawValue: String(text[..<slash])) else { return nil }
        self.kind = kind
        let rest = text[text.index(after: slash)...]
        isPrefix = rest.last == "*"
        name = String(isPrefix ? rest.dropLast() : rest)
        // What is no name, or the beginning of one, matches nothing; a lone star matches all of its kind.
        guard isPrefix && name.isEmpty || (try? UserID(name)) != nil else { return nil }
    }

    /// Whether the channel is one of the set.
    public func matches(_ channel: ChannelID) -> Bool {
        switch (kind, channel) {
        case (.user, .user(let user)): matches(user.description)
        case (.room, .room(let room)): matches(room.description)
        case (.all, .all(let broadcast)): matches(broadcast.description)
        case (.user, _), (.room, _), (.all, _): false
        }
    }

    private func matches(_ name: String) -> Bool {
        isPrefix ? name.utf8.starts(with: self.name.utf8) : name == self.name
    }

    public var description: String { "\(kind.rawValue)/\(name)\(isPrefix ? "*" : "")" }
}

/// The right to do something with some channels: `publish:room/team-*`.
public struct ChannelGrant: Hashable, Sendable {
    /// What may be done.
    public var action: ChannelAction
    /// With which channels.
    public var pattern: ChannelPattern

    /// A grant.
    public init(_ action: ChannelAction, _ pattern: ChannelPattern) {
        self.action = action
        self.pattern = pattern
    }
}

extension SessionIdentity {
    /// Whether it may do this with a channel: because it may with every channel, or by one of its ``grants``. Publishing to all
    /// takes a grant that names the broadcast: what an ordinary user may do everywhere does not reach everybody.
    public func may(_ action: ChannelAction, _ channel: ChannelID) -> Bool {
        let everywhere =
            switch action {
            case .publish: mayPublish && !channel.isBroadcast
            case .receive: mayReceive
            case .join: mayJoin
            case .manage: mayManage
            case .presence: mayWatch
            }
        return everywhere || grants.contains { $0.action == action && $0.pattern.matches(channel) }
    }
}

extension ChannelID {
    var isBroadcast: Bool {
        if case .all = self { true } else { false }
    }
}
