public import LonglineWire

/// What became of one ``ServerAction/append(channel:producer:publish:)``.
public enum PublishOutcome: Hashable, Sendable {
    /// Entered (now or by an earlier copy) and durable.
    case published(Published)
    /// Not entered.
    case refused(Refused)
}
