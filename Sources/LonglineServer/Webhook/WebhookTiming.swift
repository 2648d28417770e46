extension WebhookSettings {
    /// What an endpoint may ask for by `Retry-After`, in seconds.
    static let longestRetryAfter: UInt64 = 3_600

    /// The longest time that anything is put off, in milliseconds.
    var longestWait: UInt64 {
        max(delay.wholeMilliseconds, maximumBackOff.wholeMilliseconds, Self.longestRetryAfter * 1_000)
    }

    /// How long what an earlier process left is tried at least, however old it seems, in milliseconds: a clock that is ahead at the start
    /// is set by then, as a rule.
    private static let leastTrial: UInt64 = 3_600_000

    /// The age that what an earlier process left has at most, in milliseconds.
    var oldestAtStart: UInt64 {
        let age = maximumAge.wholeMilliseconds
        return age - min(age, Self.leastTrial)
    }

    /// How long to wait after so many failures and one more, in milliseconds: exponential, with full jitter, and never at once.
    func wait(failures: Int) -> UInt64 {
        let most = min(maximumBackOff.wholeMilliseconds, backOff.wholeMilliseconds << UInt64(min(failures, 20)))
        return UInt64.random(in: min(most, backOff.wholeMilliseconds / 2)...most)
    }
}

extension CircuitBreaker {
    init(_ settings: WebhookSettings) {
        self.init(after: settings.breakAfter, time: settings.breakTime.wholeMilliseconds)
    }
}
