import Logging
import Synchronization

/// How much all loggers of this process log; it may change at any time.
enum ProcessLogLevel {
    private static let levels = Logger.Level.allCases
    private static let index = Atomic<Int>(levels.firstIndex(of: .info) ?? 0)

    static var current: Logger.Level {
        get { levels[index.load(ordering: .relaxed)] }
        set { index.store(levels.firstIndex(of: newValue) ?? 0, ordering: .relaxed) }
    }
}

/// Passes lines on; how many, says the process, unless its logger was given a level of its own.
struct ProcessLogHandler<Base: LogHandler>: LogHandler {
    private var base: Base
    private var own: Logger.Level?

    init(_ base: Base) { self.base = base }

    var logLevel: Logger.Level {
        get { own ?? ProcessLogLevel.current }
        set { own = newValue }
    }

    var metadata: Logger.Metadata {
        get { base.metadata }
        set { base.metadata = newValue }
    }

    var metadataProvider: Logger.MetadataProvider? {
        get { base.metadataProvider }
        set { base.metadataProvider = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { base[metadataKey: key] }
        set { base[metadataKey: key] = newValue }
    }

    func log(event: LogEvent) { base.log(event: event) }
}
