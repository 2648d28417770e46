public import LonglineKeys
public import LonglineSession

/// The claim `scope`: what a token's holder may do, everywhere or with some channels.
///
/// ```
///   scope   = [ word *( SP word ) ]
///   word    = action [ ":" pattern ] / "erase" ; any other word is ignored
///   action  = "publish" / "receive" / "join" / "manage" / "presence"
///   pattern = kind ( name / [ name ] "*" )     ; at most 69 bytes
///   kind    = "user/" / "room/" / "all/"
/// ```
/// Words only add rights, so that an unknown one, or one with a pattern that is none, grants nothing.
public struct ScopeClaim: Hashable, Sendable {
    /// The most words with a pattern; a resume ticket has to hold them.
    public static let maximumGrants = 32
    /// The most bytes that their patterns have together.
    public static let maximumPatternBytes = 512

    /// What may be done with every channel.
    public var scopes: TokenScopes
    /// What else may be done, with some channels.
    public var grants: [ChannelGrant]

    /// Rights.
    public init(scopes: TokenScopes, grants: [ChannelGrant] = []) {
        self.scopes = scopes
        self.grants = grants
    }

    /// Reads the claim's text.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/claimInvalid`` when there are more patterns than the limits allow.
    public init(_ text: String) throws(AuthenticationError) {
        scopes = []
        grants = []
        var bytes = 0
        for word in text.split(separator: " ") {
            if word == Self.erase {
                scopes.insert(.erase)
                continue
            }
            let parts = word.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let action = Self.actions.first(where: { $0.name == parts[0] }) else { continue }
            guard parts.count > 1 else {
                scopes.insert(action.scope)
                continue
            }
            guard let pattern = ChannelPattern(parts[1]) else { continue }
            grants.append(ChannelGrant(action.action, pattern))
            bytes += parts[1].utf8.count
            guard grants.count <= Self.maximumGrants, bytes <= Self.maximumPatternBytes else {
                throw AuthenticationError(
                    .claimInvalid,
                    "claim scope has more than \(Self.maximumGrants) patterns, or they have more than "
                        + "\(Self.maximumPatternBytes) bytes",
                    advice: "name channels so that one pattern covers many")
            }
        }
    }

    /// The claim's text.
    public var text: String {
        let everywhere = Self.actions.filter { scopes.contains($0.scope) }.map(\.name)
        let somewhere = grants.map { grant in
            (Self.actions.first { $0.action == grant.action }?.name ?? "") + ":\(grant.pattern)"
        }
        let own = scopes.contains(.erase) ? [Self.erase] : []
        return (everywhere + somewhere + own).joined(separator: " ")
    }

    /// The one right that is about no channel.
    private static let erase = "erase"

    private static let actions: [(name: String, scope: TokenScopes, action: ChannelAction)] = [
        ("publish", .publish, .publish), ("receive", .receive, .receive), ("join", .join, .join),
        ("manage", .manage, .manage),
        ("presence", .presence, .presence),
    ]
}
