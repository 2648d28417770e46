import LonglineWire

/// What may be read, and what is said of it.
extension Truth {
    /// What CONNECTED has to say of a channel to a device whose place is a cursor, or that has none.
    func recovery(of cursor: Position?, in channel: ChannelID, epoch: Epoch, _ user: UserID, _ device: DeviceID)
        -> Recovery
    {
        guard let cursor else { return .fresh }
        guard cursor.epoch == epoch else { return .gap }
        // Nothing was entered in a log that is not written down here.
        let log = logs[channel] ?? Log(epoch: epoch)
        guard cursor.offset <= log.head.offset else { return .gap }
        guard let stint = stint(of: user, on: device, in: channel) else { return .recovered }
        // What is gone behind the end of the stay was nothing of the user's.
        let last = min(log.first, stint.upTo ?? .max)
        return log.entries(above: max(cursor.offset, stint.after)).contains { $0.offset <= last } ? .gap : .recovered
    }

    /// Whether a user may be given an offset as history.
    func mayReadPast(_ offset: Offset, of channel: ChannelID, _ user: UserID) -> Bool {
        if case .all = channel { return logs[channel] != nil }
        return mayRead(offset, of: channel, user, nil)
    }
}
