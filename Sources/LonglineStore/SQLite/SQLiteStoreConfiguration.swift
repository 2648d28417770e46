public import Logging

/// How a ``SQLiteStore`` is opened.
public struct SQLiteStoreConfiguration: Sendable {
    /// The folder that holds the store's files; it must exist, on a local file system.
    public var directory: String
    /// What users may make the store keep.
    public var limits = StoreLimits()
    /// Connections that read at the same time; 1 or more.
    public var readers = 4
    /// Writes that may wait for the writer, in requests. Beyond, appends are refused ``/LonglineWire/RefusalCode/overloaded`` and other writes
    /// throw ``StoreError/Code/overloaded``.
    public var queueRequests = 16_384
    /// Writes that may wait for the writer, in bytes.
    public var queueBytes = 64 * 1_024 * 1_024
    /// The most requests in one transaction.
    public var batchRequests = 1_024
    /// The most bytes in one transaction.
    public var batchBytes = 8 * 1_024 * 1_024
    /// Bytes of recent entries kept in memory.
    public var tailCacheBytes = 32 * 1_024 * 1_024
    /// The largest size of the database file in bytes, or nil for as much as the disk has. At the size the store is full.
    public var maximumSize: Int?
    /// Called when the disk failed in a way that only a restart can judge; nil to log and end the process with status 74.
    ///
    /// Whatever it does, the store answers nothing but errors afterwards.
    public var fatal: (@Sendable (StoreError) -> Void)?
    /// Where the store logs.
    public var logger: Logger

    /// A configuration for a folder.
    public init(directory: String, logger: Logger = Logger(label: "longline.store")) {
        self.directory = directory
        self.logger = logger
    }
}
