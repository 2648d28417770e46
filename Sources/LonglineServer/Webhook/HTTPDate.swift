/// The date of an HTTP field, in the one form that senders may write (RFC 9110, section 5.6.7).
enum HTTPDate {
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

    /// Reads `Sun, 06 Nov 1994 08:49:37 GMT`.
    /// - Returns: seconds since 1970; nil for what is no such date, or from before.
    static func seconds(_ text: some StringProtocol) -> UInt64? {
        let parts = text.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 6, parts[0].hasSuffix(","), parts[5] == "GMT", let day = number(parts[1], 2),
            let month = months.firstIndex(of: String(parts[2])), let year = number(parts[3], 4)
        else { return nil }
        let clock = parts[4].split(separator: ":", omittingEmptySubsequences: false).map { number($0, 2) }
        guard clock.count == 3, let hour = clock[0], let minute = clock[1], let second = clock[2],
            year >= 1970, (1...31).contains(day), hour < 24, minute < 60, second <= 60
        else { return nil }
        return days(year, month + 1, day) * 86_400 + hour * 3_600 + minute * 60 + second
    }

    private static func number(_ text: some StringProtocol, _ digits: Int) -> UInt64? {
        text.utf8.count == digits && text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt64(text) : nil
    }

    /// Days since 1970, by the Gregorian calendar: years are taken to begin in March, so that a leap day is a year's last.
    private static func days(_ year: UInt64, _ month: Int, _ day: UInt64) -> UInt64 {
        let past = month > 2 ? year : year - 1
        let monthsSinceMarch = UInt64((month + 9) % 12)
        let ofYear = (153 * monthsSinceMarch + 2) / 5 + day - 1
        return past * 365 + past / 4 - past / 100 + past / 400 + ofYear - 719_468
    }
}
