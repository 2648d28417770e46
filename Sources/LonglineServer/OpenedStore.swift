import LonglineStore

/// The server's store, and whether the server has to close it.
struct OpenedStore: Sendable {
    let store: any MessageStore
    /// What removes old entries, if the store can.
    let maintenance: (any StoreMaintenance)?
    /// The store, if it is the server's own.
    let own: SQLiteStore?

    init(_ configuration: LonglineServer.Configuration) throws(ServerError) {
        switch configuration.store {
        case .shared(let shared): self.init(store: shared, own: nil)
        case .directory(let path):
            self.init(opened: try Self.open(SQLiteStoreConfiguration(directory: path, logger: configuration.logger)))
        case .sqlite(let settings): self.init(opened: try Self.open(settings))
        }
    }

    private init(opened: SQLiteStore) { self.init(store: opened, own: opened) }

    private init(store: any MessageStore, own: SQLiteStore?) {
        self.store = store
        self.own = own
        if let own { maintenance = own } else { maintenance = store as? any StoreMaintenance }
    }

    private static func open(_ settings: SQLiteStoreConfiguration) throws(ServerError) -> SQLiteStore {
        do { return try SQLiteStore(settings) } catch {
            throw ServerError(
                .storeUnavailable, message: "can't open the store in \(settings.directory)", cause: error,
                advice: error.advice.isEmpty ? "check the folder, its owner and free space" : "")
        }
    }

    /// When the store was last restored from a backup, if it can tell; in milliseconds since 1970.
    var restoredAt: UInt64? { (store as? SQLiteStore)?.restoredAt }

    /// Writes what is queued and gives the files back.
    func close() async throws(StoreError) { try await own?.close() }
}

extension LonglineServer {
    /// How long the store remembers a device that is not seen, in milliseconds, whether it is open yet or not.
    package var unseenLimit: UInt64 {
        switch configuration.store {
        case .directory: StoreLimits().unseen
        case .sqlite(let settings): settings.limits.unseen
        case .shared(let store): (store as? any StoreMaintenance)?.unseenLimit ?? StoreLimits().unseen
        }
    }
}
