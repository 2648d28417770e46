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
///
/// It is asked once, and each caller waits for the answer as long as it wants to.
struct PendingAccountErasure {
    struct Waiter {
        let timer: DriverTimer
        let done: (ClientError?) -> Void
    }

    private var waiters: [UInt64: Waiter] = [:]
    private var lastWaiter: UInt64 = 0

    /// Nobody waits any more.
    var isOver: Bool { waiters.isEmpty }

    /// - Parameter makeTimer: for the number by which ``remove(_:)`` knows the waiter.
    mutating func wait(_ makeTimer: (UInt64) -> DriverTimer, _ done: @escaping (ClientError?) -> Void) {
        lastWaiter += 1
        waiters[lastWaiter] = Waiter(timer: makeTimer(lastWaiter), done: done)
    }

    mutating func remove(_ id: UInt64) -> Waiter? { waiters.removeValue(forKey: id) }

    /// All, in the order in which they asked.
    var inOrder: [Waiter] { waiters.sorted { $0.key < $1.key }.map(\.value) }
}

extension ConnectionDriver {
    /// Asks the service to erase the user's account. `done` is called with nil when nothing can prevent that any more, this
    /// client has ended and its storage can be wiped; with an error otherwise.
    func eraseAccount(within patience: TimeAmount, _ done: @escaping (ClientError?) -> Void) {
        guard case .none = logout else { return done(Self.loggedOut) }
        if erasure == nil {
            guard session.eraseAccount(now: clock.now()) else {
                return done(
                    ClientError(.notConnected, message: "the client isn't connected", advice: "call connect() first"))
            }
            isErasureOpen = true
            erasure = PendingAccountErasure()
        }
        let timer = { (id: UInt64) in
            self.schedule(in: patience) { driver in driver.giveUpErasure(id, after: patience) }
        }
        erasure?.wait(timer, done)
        pump()
    }

    /// A caller's time is over; others may wait longer.
    private func giveUpErasure(_ id: UInt64, after patience: TimeAmount) {
        guard let waiter = erasure?.remove(id) else { return }
        if erasure?.isOver == true { erasure = nil }
        waiter.done(Self.erasureUnknown("no answer in \(Duration(patience))"))
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
        let waiters = takeErasureWaiters()
        endForGood(.acknowledged, [{ _ in for done in waiters { done(nil) } }])
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
        for done in takeErasureWaiters() { done(error) }
    }

    private func takeErasureWaiters() -> [(ClientError?) -> Void] {
        let waiters = erasure?.inOrder ?? []
        erasure = nil
        for waiter in waiters { waiter.timer.cancel() }
        return waiters.map(\.done)
    }

    static func erasureUnknown(_ reason: String) -> ClientError {
        ClientError(
            .outcomeUnknown, message: "it is not known whether the account is erased: \(reason)",
            advice: "stay connected or connect again: the client ends if it is, else ask again")
    }
}
