import Logging
import LonglineSession
import LonglineWire
import NIOCore

/// An erasure of the account between its question and its answer.
///
/// ```
///   asked --closed with loggedOut--> over: the client ends for good, as after a logout
///     |---- ERASURE_REFUSED --------------------------> failed; the client goes on
///     '---- link lost, no answer in time --> unknown; the client goes on
///                                               '-- closed with loggedOut, or credentialRevoked --> over
/// ```
struct PendingAccountErasure {
    let timer: DriverTimer
    var waiters: [(ClientError?) -> Void]
}

extension ConnectionDriver {
    /// Asks the service to erase the user's account. `done` is called with nil when nothing can prevent that any more, this
    /// client has ended and its storage can be wiped; with an error otherwise.
    func eraseAccount(within patience: TimeAmount, _ done: @escaping (ClientError?) -> Void) {
        guard case .none = logout else { return done(Self.loggedOut) }
        guard erasure == nil else {
            erasure?.waiters.append(done)
            return
        }
        guard session.eraseAccount(now: clock.now()) else {
            return done(
                ClientError(.notConnected, message: "the client isn't connected", advice: "call connect() first"))
        }
        let timer = schedule(in: patience) { driver in
            driver.answerErasure(Self.erasureUnknown("no answer in \(Duration(patience))"))
        }
        isErasureOpen = true
        erasure = PendingAccountErasure(timer: timer, waiters: [done])
        pump()
    }

    func erasureRefused(_ refusal: ErasureRefused) {
        isErasureOpen = false
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
            answerErasure(Self.erasureUnknown(end.reason))
            return false
        }
        let waiters = erasure?.waiters ?? []
        erasure?.timer.cancel()
        erasure = nil
        endForGood(.acknowledged, [{ _ in for waiter in waiters { waiter(nil) } }])
        return true
    }

    /// The link ended as it does where an erasure was done that the app asked for, and of which it knows nothing: the client ends for
    /// good, as with the answer. Once the user wanted to be forgotten, a revocation leaves nothing here that would be worth keeping.
    /// - Returns: whether that is so.
    func erasureWasDone(by end: LinkEnd) -> Bool {
        guard isErasureOpen, case .closed(let close) = end,
            close.code == .loggedOut || close.code == .credentialRevoked
        else { return false }
        logger.notice("the account's erasure is over, the client ends", metadata: ["code": "\(close.code.rawValue)"])
        endForGood(.acknowledged, [{ [core] _ in core?.accountWasErased() }])
        return true
    }

    func answerErasure(_ error: ClientError) {
        guard let asked = erasure else { return }
        erasure = nil
        asked.timer.cancel()
        for waiter in asked.waiters { waiter(error) }
    }

    static func erasureUnknown(_ reason: String) -> ClientError {
        ClientError(
            .outcomeUnknown, message: "it is not known whether the account is erased: \(reason)",
            advice: "stay connected or connect again: the client ends if it is, else ask again")
    }
}
