extension SessionSimulation {
    /// How often things happened, to see that a run is not empty.
    public struct Counts: Sendable {
        /// Links opened.
        public var links = 0
        /// Connects accepted.
        public var connects = 0
        /// Of these, in a link's first flight.
        public var early = 0
        /// Early flights sent again by somebody else.
        public var replays = 0
        /// The server killed.
        public var serverRestarts = 0
        /// The server killed by one of its writes.
        public var serverCrashes = 0
        /// The server's store replaced by its backup.
        public var storeRestores = 0
        /// A device's app killed.
        public var deviceRestarts = 0
        /// A device's app killed by one of its writes.
        public var deviceCrashes = 0
        /// A device restored from a backup, or without anything.
        public var restores = 0
        /// A device restored a second time, from the same backup or a later one.
        public var secondRestores = 0
        /// Devices that met a second one of their name.
        public var twins = 0
        /// Another phone logged in by a user who may have one device of each platform.
        public var otherPhones = 0
        /// Compressed batches sent.
        public var batches = 0
        /// Gaps that apps were told of.
        public var gaps = 0
        /// Changes of the room that devices asked for, as owners or not.
        public var roomChanges = 0
        /// Rights to publish taken away, by the credential's scope or by the app's backend.
        public var rightsTaken = 0
        /// Rights to receive a channel taken away.
        public var channelsStopped = 0
        /// Pages of history that devices got.
        public var historyPages = 0
        /// Changes of an app's mode.
        public var modes = 0
        /// Requests put to other users.
        public var requests = 0
        /// Replies to requests.
        public var replies = 0
        /// What another tenant's users of the same names did.
        public var neighbours = 0
        /// CONNECTEDs that named an older record of cursors than the one before.
        public var olderRecords = 0
        /// Users who blocked another.
        public var blocks = 0
        /// The server's disk full for a while.
        public var fullDisks = 0
        /// Logs trimmed by age or by bytes.
        public var otherTrims = 0
        /// The server's clock set by minutes, hours or days.
        public var clockJumps = 0
        /// Messages of the app's own server.
        public var serviceOrders = 0
        /// Messages of the app's own server that it asked for again.
        public var serviceRepeats = 0
        /// More of these into one log than its ledger remembers.
        public var serviceBursts = 0
        /// Accounts that were to be erased.
        public var erasures = 0
        /// Devices of such an account that logged in once more.
        public var newAccounts = 0
        /// Devices on which one user logged out, and another one in.
        public var switches = 0
        /// Half years in which nobody was there.
        public var halfYears = 0
        /// Devices that a sweep took.
        public var sweptDevices = 0
        /// Inboxes and rooms that a sweep took.
        public var sweptChannels = 0
        /// Producers given up because an ID was used twice.
        public var renewals = 0

        /// Nothing happened yet.
        public init() {}
    }
}
