import Logging
import LonglineSession
import LonglineWire
import NIOCore

/// The app's token provider, with an end: nothing waits for one that hangs.
extension ConnectionDriver {
    /// How long the provider has for one answer.
    static let tokenPatience = TimeAmount.seconds(60)

    /// Asks the app's provider, for at most a time.
    var boundedTokenProvider: @Sendable (TimeAmount) async throws -> String {
        let (tokens, loop) = (tokens, loop)
        return { time in
            try await Outcome.bounded(by: time, on: loop, timedOut: { Self.tokenTimedOut(after: time) }) {
                try await tokens.token()
            }
        }
    }

    /// Asks it, for at most ``tokenPatience``, and calls `arrived` with the answer.
    func askForToken(_ arrived: @escaping @Sendable (Result<String, any Error>) -> Void) -> Task<Void, Never> {
        let provider = boundedTokenProvider
        let patience = Self.tokenPatience
        return Task {
            do { arrived(.success(try await provider(patience))) } catch { arrived(.failure(error)) }
        }
    }

    private static func tokenTimedOut(after time: TimeAmount) -> ClientError {
        ClientError(
            .timedOut, message: "the token provider gave no answer in \(Duration(time))",
            advice: "give what it asks a shorter time")
    }

    static func noToken(_ error: any Error) -> ClientError {
        ClientError(
            .tokenProvider, message: "no token", cause: error, advice: "the token provider's error says more")
    }

    // MARK: Renewal

    /// Gets a fresh token when four fifths of the present one's time are over.
    func scheduleRefresh(expiry: UInt64) {
        refreshTimer?.cancel()
        guard expiry > 0, let link = current else { return }
        let left = max(0, Int64(clamping: expiry) - Int64(clamping: serverTime))
        // A timer of more than a month isn't needed: no link lives that long without a reconnect.
        let delay = min(left / 5 * 4, 30 * 86_400_000)
        refreshTimer = schedule(in: .milliseconds(max(1_000, delay))) { driver in
            guard driver.current === link else { return }
            driver.refreshToken(link, expiry: expiry)
        }
    }

    private func refreshToken(_ link: DriverLink, expiry: UInt64) {
        let arrived = hop { (driver: ConnectionDriver, token: Result<String, any Error>) in
            guard driver.current === link, link.connectedAt != nil else { return }
            switch token {
            case .success(let token):
                if let error = driver.otherUser(token: token) {
                    // The session came by the stored user's ticket.
                    driver.keepResumeTicket(nil)
                    driver.scheduleFlush()
                    driver.endCurrent(farewell: Close(code: .normal, reason: error.message))
                    driver.stop(forOtherUser: error)
                    return
                }
                _ = driver.session.refresh(token: token, now: driver.clock.now())
                driver.pump()
            case .failure(let error):
                // The service ends the session when the token's time is over; until then it is worth other tries.
                driver.logger.warning("no fresh token", metadata: ["error": "\(error)"])
                driver.scheduleRefresh(expiry: expiry)
            }
        }
        refreshQuestion = askForToken(arrived)
    }

    /// The link that was to have a fresh token is gone.
    func stopRefreshing() {
        refreshTimer?.cancel()
        refreshQuestion?.cancel()
        refreshQuestion = nil
    }
}
