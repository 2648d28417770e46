import LonglineSession
import LonglineWire
import NIOCore

/// An erasure of the account between its question and its answer.
///
/// ```
///   asked --closed with loggedOut--> over: the client ends for good, as after a logout
///     |---- ERASURE_REFUSED, link lost, no answer in time ----> failed; the client goes on
/// ```
struct PendingAccountErasure {
    let timer: DriverTimer
    var waiters: [(ClientError?) -> Void]
}

extension ConnectionDriver {
    /// Asks the service to erase the user's account. `done` is called with nil when nothing can prevent that any more, this
    /// client has ended and its storage can be wiped; with an error otherwise.
    func eraseAccount(_ done: @escaping (ClientError?) -> Void) {
        guard case .none = logout else { return done(Self.loggedOut) }
        guard erasure == nil else {
            erasure?.waiters.append(done)
            return
        }
        guard session.eraseAccount(now: clock.now()) else {
            return done(
                ClientError(.notConnected, message: "the client isn't connected", advice: "call connect() first"))
        }
        let timer = schedule(in: TimeAmount(configuration.closeTimeout)) { driver in
            driver.answerErasure(Self.unknown("no answer in \(driver.configuration.closeTimeout)"))
        }
        erasure = PendingAccountErasure(timer: timer, waiters: [done])
        pump()
    }

    func erasureRefused(_ refusal: ErasureRefused) {
        answerErasure(
            ClientError(
                .refused, message: "the account was not erased",
                advice: refusal.retryAfter > 0
                    ? "try again in \(refusal.retryAfter) ms" : "erase the account through the app's backend",
                refusal: refusal.code, retryAfter: ClientError.retryAfter(refusal.retryAfter)))
    }

    /// The link ended while an answer was due.
    /// - Returns: whether it was the answer, and the client has ended.
    func erasureEnded(with end: LinkEnd) -> Bool {
        guard case .closed(let close) = end, close.code == .loggedOut else {
            answerErasure(Self.unknown(end.reason))
            return false
        }
        let waiters = erasure?.waiters ?? []
        erasure?.timer.cancel()
        erasure = nil
        endForGood(.acknowledged, [{ _ in for waiter in waiters { waiter(nil) } }])
        return true
    }

    func answerErasure(_ error: ClientError) {
        guard let asked = erasure else { return }
        erasure = nil
        asked.timer.cancel()
        for waiter in asked.waiters { waiter(error) }
    }

    private static func unknown(_ reason: String) -> ClientError {
        ClientError(
            .notConnected, message: "it is not known whether the account is erased: \(reason)",
            advice: "connect again: the service answers with \(CloseCode.loggedOut.rawValue) or "
                + "\(CloseCode.credentialRevoked.rawValue) if it is, else ask again")
    }
}
