import Logging
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

@Suite("The dates of a certificate") struct CertificateWatchTests {
    private static let day: UInt64 = 86_400

    private func credentials(from start: UInt64, days: Int) throws -> TLSServerCredentials {
        // It begins an hour before.
        try DevelopmentCertificate.generate(names: ["localhost"], validDays: days, now: start + 3_600).credentials
    }

    @Test("are read, and told as a problem or in time before they are one")
    func dates() throws {
        let start: UInt64 = 1_900_000_000
        let validity = try credentials(from: start, days: 90).validity()
        let end = start + 3_600 + 90 * Self.day
        #expect(validity == CertificateValidity(start: start, end: end))
        #expect(validity.problem(at: start - 1) == "is not good before 2030-03-17T17:46:40Z")
        #expect(validity.problem(at: start) == nil && validity.problem(at: end) == nil)
        #expect(validity.problem(at: end + 1)?.hasPrefix("expired on 2030-06-15T") == true)
        #expect(validity.warning(at: end - 7 * Self.day) == nil)
        #expect(validity.warning(at: end - 7 * Self.day + 1)?.hasPrefix("expires on 2030-06-15T") == true)
        // One that lives for days only is not complained about all its life.
        let short = CertificateValidity(start: start, end: start + 6 * Self.day)
        #expect(short.warning(at: start + 4 * Self.day) == nil && short.warning(at: start + 5 * Self.day) != nil)
        #expect(throws: QUICError.self) {
            try TLSServerCredentials(certificateChainPEM: "x", privateKeyPEM: "y").validity()
        }
    }

    @Test("decide whether another certificate takes its place")
    func replaced() throws {
        let now = Mutex(UInt64(1_900_000_000))
        let watch = CertificateWatch(logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }) {
            now.withLock { $0 * 1_000 }
        }
        let start = now.withLock { $0 }
        let good = try credentials(from: start - Self.day, days: 30)
        let old = try credentials(from: start - 20 * Self.day, days: 10)
        let future = try credentials(from: start + Self.day, days: 30)
        #expect(watch.end == nil)
        // There is nothing better.
        try watch.check(old)
        watch.use(old)
        try watch.check(future)
        try watch.check(good)
        watch.use(good)
        #expect(watch.end == (try good.validity().end))
        for bad in [old, future] { #expect(throws: ServerError.self) { try watch.check(bad) } }
        try watch.check(good)
        now.withLock { $0 += 40 * Self.day }
        try watch.check(old)
    }
}
