/// A store with all parts. ``ChannelLog`` holds the publish ledger, in the entry's transaction.
public typealias MessageStore = ChannelLog & Rooms & Conversations & DeviceCursors & DevicePlaces & Revocations
    & AccountErasure & PresenceRecords
