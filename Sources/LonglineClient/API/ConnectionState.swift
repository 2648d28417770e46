public import LonglineLinks
public import LonglineWire

/// Where a client stands: what an app shows its user.
///
/// ```
///   disconnected --connect()--> connecting --accepted--> connected <--> migrating
///        ^                        |    ^                     |             |
///        |                     failed  | time is over       lost          lost
///   disconnect()                  v    |                     |             |
///    from any                    waiting <-------------------'-------------'
///                                   |
///                                   '-- the service said "stop" --> stopped --connect()--> connecting
/// ```
public enum ConnectionState: Sendable {
    /// Not connected, and not trying.
    case disconnected
    /// The control layer is asked where to connect; ``connecting(attempt:accessPoint:)`` follows. Only with
    /// ``LonglineClient/LonglineClient/Configuration/control``, and only when its last answer doesn't do any more.
    case locating(attempt: Int)
    /// A link is being opened. `attempt` counts from 1 since the last connection.
    case connecting(attempt: Int, accessPoint: AccessPoint)
    /// The service accepted the session; also sent again when the path has changed.
    case connected(ConnectionInfo)
    /// The connection is being moved to another path; it goes on meanwhile.
    case migrating(MigrationCause)
    /// The next attempt starts after `delay`; `cause` says why there is no connection, see ``LonglineClient/LonglineClient/lastFailure``. Where
    /// it starts at once there is no such state.
    case waiting(delay: Duration, cause: ClientError)
    /// Another process of the app owns the shared outbox, connects and receives; messages sent here are taken over by it. The
    /// client connects once that process ends or gives it up. Only with a ``SharedClientStorage``.
    case standby
    /// The service told the client not to come back by itself: the app has to act, then ``LonglineClient/connect()``.
    case stopped(CloseCode, reason: String)

    /// The service speaks no version of the protocol that this app knows, or says with another code of that range that only a newer
    /// app may connect: an app tells its user to upgrade. ``LonglineClient/connect()`` tries again all the same.
    case upgradeRequired(CloseCode, reason: String)

    /// Why the client stays away, with advice, when it was ``stopped(_:reason:)`` or ``upgradeRequired(_:reason:)``; what ``LonglineClient/connect()`` throws.
    public var stopError: ClientError? {
        switch self {
        case .stopped(let code, let reason), .upgradeRequired(let code, let reason):
            ClientError(stoppedBy: code, reason: reason)
        default: nil
        }
    }

    /// Whether it tells nothing that `last` did not: only for states that say all by their name.
    func repeats(_ last: ConnectionState) -> Bool {
        switch (last, self) {
        case (.disconnected, .disconnected), (.standby, .standby): true
        default: false
        }
    }

    /// Whether messages flow now.
    public var isConnected: Bool {
        switch self {
        case .connected, .migrating: true
        default: false
        }
    }
}

/// Why a connection moves to another path.
public enum MigrationCause: Hashable, Sendable {
    /// The app asked for it.
    case requested
    /// The machine lost the address the connection used.
    case addressGone
    /// The path stopped to answer.
    case noAnswer
}

/// A connection as it came to be, and where it runs now.
public struct ConnectionInfo: Hashable, Sendable {
    /// Names the session in logs of both sides.
    public var session: UInt64
    /// Whether an earlier session of this device goes on.
    public var resumed: Bool
    /// Whether the first flight (0-RTT) carried the connect and what waited, and was taken.
    public var earlyData: Bool
    /// Whether TLS resumed an earlier session.
    public var transportResumed: Bool
    /// What carries it.
    public var link: LinkKind
    /// Where it goes.
    public var accessPoint: AccessPoint
    /// The address and port of this side, if the transport tells.
    public var localAddress: String?
    /// The service's address and port.
    public var remoteAddress: String
    /// The address and port at which the service sees this client.
    public var observedAddress: String
    /// From the first packet to the completed handshake.
    public var handshakeTime: Duration
    /// From the start of the attempt to the service's answer.
    public var connectTime: Duration
    /// What happened to each channel: recovered, or with a gap.
    public var channels: [ChannelAnswer]
}

/// Something an app may want to tell its user, beside messages and states.
public enum ClientNotice: Sendable {
    /// Messages of a channel are lost to this device: retention removed them, or the channel's log was made anew.
    case gap(ChannelID, MessageGap)
    /// A range of a channel is absent on purpose.
    case skipped(ChannelID, Skip)
    /// A publish of an earlier process was answered; a receipt of this process tells the rest.
    case published(ChannelID, Published)
    /// A publish of an earlier process was refused for good.
    case refused(ChannelID, ClientError)
    /// The fresh token does not allow this channel's messages: none comes until another token allows it.
    case stopped(ChannelID)
    /// The app confirms a channel's messages more slowly than they come, or the network is slower than they are: for some
    /// seconds the service has had more than it may send. It keeps them in the channel's log and goes on as the app confirms;
    /// an app may as well jump to the end with ``LonglineClient/history(of:before:limit:timeout:)``. Told once, and once
    /// more with ``/LonglineWire/ChannelLag/isBehind`` false when everything was sent.
    case behind(ChannelLag)
    /// Another device of this user changed what was decided about a conversation.
    case conversationChanged(Destination, ConversationSettings)
    /// A newer login on another device took this one's place, as the app's device policy says. The client has stopped, and its
    /// ticket is void; so many messages wait in the outbox, and stay there until the user logs in on this device again and
    /// ``LonglineClient/connect()`` is called.
    case evicted(reason: String, waiting: Int)
    /// The service sees this client at another address.
    case observedAddress(String)
    /// The durable state could not be written, or read while the client waits for its turn as the owner of a shared outbox; it keeps
    /// trying.
    case storageFailed(ClientError)
}

/// What is lost in a channel.
public struct MessageGap: Hashable, Sendable {
    /// The device's last place.
    public var from: Position
    /// Everything up to here is gone. Where it is before ``from`` in the same epoch, the log lost its end, and what the device had beyond
    /// this place is gone there.
    public var upTo: Position
}
