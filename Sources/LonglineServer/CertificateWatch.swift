import FoundationEssentials
import Logging
import LonglineStore
public import QUICEngine
import Synchronization

/// Knows until when the certificate in use is good, and says so in time.
final class CertificateWatch: Sendable {
    private let used = Mutex<CertificateValidity?>(nil)
    private let logger: Logger
    private let now: @Sendable () -> UInt64

    /// - Parameter now: the wall clock, in milliseconds since 1970.
    init(logger: Logger, now: @escaping @Sendable () -> UInt64 = WallClock.milliseconds) {
        self.logger = logger
        self.now = now
    }

    /// Until when the certificate in use is good, in seconds since 1970; nil before the start.
    var end: UInt64? { used.withLock { $0?.end } }

    /// Whether a certificate may take the place of the one in use. One that nobody would believe does not, as long as the one in use
    /// is believed.
    /// - Throws: `QUICError` when it can't be read, ``ServerError/Code/certificate`` when it is not good now.
    func check(_ credentials: TLSServerCredentials) throws {
        let next = try credentials.validity()
        let present = used.withLock { $0 }
        guard let problem = next.problem(replacing: present, at: seconds) else { return }
        throw ServerError(.certificate, message: "the new certificate \(problem)", advice: "get one that is good now")
    }

    /// It is in use from now on.
    func use(_ credentials: TLSServerCredentials) {
        // What TLS took can be read.
        guard let next = try? credentials.validity() else { return }
        used.withLock { $0 = next }
        warn()
    }

    /// Says when it is not good, or not for long.
    func warn() {
        guard let validity = used.withLock({ $0 }), let problem = validity.warning(at: seconds) else { return }
        logger.warning("the certificate \(problem)")
    }

    private var seconds: UInt64 { now() / 1_000 }
}

extension CertificateValidity {
    /// Why nobody believes it at a time; nil: that is not for its dates.
    /// - Parameter time: in seconds since 1970.
    public func problem(at time: UInt64) -> String? {
        if time > end { return "expired on \(Self.date(end))" }
        return time < start ? "is not good before \(Self.date(start))" : nil
    }

    /// Why it may not take another's place at a time: nobody believes it, and the other is believed.
    /// - Parameters:
    ///   - present: the one in use, if any.
    ///   - time: in seconds since 1970.
    public func problem(replacing present: CertificateValidity?, at time: UInt64) -> String? {
        present?.contains(time) == true ? problem(at: time) : nil
    }

    /// What somebody should know of its dates at a time: ``problem(at:)``, or that it ends within seven days.
    /// - Parameter time: in seconds since 1970.
    public func warning(at time: UInt64) -> String? {
        if let problem = problem(at: time) { return problem }
        // Of one that lives for days only, the last third.
        return end - time < min(7 * 86_400, (end - min(start, end)) / 3) ? "expires on \(Self.date(end))" : nil
    }

    private static func date(_ time: UInt64) -> String {
        Date(timeIntervalSince1970: Double(time)).formatted(.iso8601)
    }
}
