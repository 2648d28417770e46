import LonglineWire
import NIOCore

/// What the control layer said last, whether it still holds, and when to ask again. Reads no clock of its own.
///
/// ```
///   nothing --answer--> fresh -- lifetime over, or a node sent the client away --> due
///                         ^                                                         |
///                         '----------------------- answer --------------------------'
/// ```
/// A due answer goes on to be used while none comes.
struct AccessBook: Sendable {
    /// Why an answer that is fresh may be wrong.
    enum Doubt { case unreached, sentAway }

    /// After a question in vain the last answer does for so long, and up to twice as long, before the next question.
    static let restAfterFailure = Duration.seconds(15)

    private(set) var answer: AccessAnswer?
    /// For whom it was said.
    private(set) var user: UserID?
    /// The same, as the service signed it; nil where that wasn't verified.
    private(set) var holder: TokenHolder?
    /// Why the answer that an earlier process kept was not believed.
    private(set) var distrust: ClientError?
    private(set) var routes: [StoredControlRoute]
    /// What carried the last answer; nil before the first of this process.
    private(set) var transport: ControlTransport?
    private var receivedAt: UInt64 = 0
    /// On the clock that never goes back.
    private var freshUntil: NIODeadline?
    private var reasonToDoubt: Doubt?
    private var restsUntil: NIODeadline?
    /// The control layer itself asked to be left alone until then.
    private var mustWaitUntil: NIODeadline?

    /// Takes up what an earlier process kept, if it is of use here.
    /// - Parameters:
    ///   - controls: the addresses that are configured; an answer of another service is of no use.
    ///   - verifier: judges what was kept by the keys that are trusted now: an answer of one that no longer is counts for nothing.
    ///   - user: whose client this is, if that is known.
    init(
        _ stored: StoredAccess?, routes: [StoredControlRoute], controls: Set<String>, verifier: AccessVerifier? = nil,
        user: UserID?, now: NIODeadline, wall: UInt64
    ) {
        self.routes = routes.filter { controls.contains($0.url) && $0.isSound }
        guard let stored, controls.contains(stored.control), stored.user == nil || user == nil || stored.user == user
        else { return }
        let (answer, owner): (AccessAnswer, UserID?)
        do throws(ClientError) {
            if let verifier {
                let verified = try verifier.read(stored.answer)
                holder = verified.question.holder
                (answer, owner) = (verified.answer, verified.question.holder.user)
            } else {
                (answer, owner) = (try AccessAnswer(parsing: stored.answer), stored.user)
            }
        } catch {
            if error.code == .controlAnswerUntrusted { distrust = error }
            return
        }
        guard owner == nil || user == nil || owner == user else {
            holder = nil
            return
        }
        self.answer = answer
        self.user = owner
        receivedAt = stored.receivedAt
        // A clock that was set back says nothing about the answer's age: then it is due.
        guard wall >= stored.receivedAt else { return }
        let left = answer.lifetime - Self.span(wall - stored.receivedAt)
        if left > .zero { freshUntil = now + TimeAmount(left) }
    }

    /// An answer came: what is to be kept of it.
    mutating func received(
        _ fetched: FetchedAccess, user: UserID?, now: NIODeadline, wall: UInt64
    ) -> StoredAccess {
        answer = fetched.answer
        self.user = user
        holder = fetched.holder
        transport = fetched.way.transport
        receivedAt = wall
        freshUntil = now + TimeAmount(fetched.answer.lifetime)
        reasonToDoubt = nil
        restsUntil = nil
        mustWaitUntil = nil
        let url = fetched.way.control.url
        let known = routes.first { $0.url == url } ?? StoredControlRoute(url: url)
        routes = routes.filter { $0.url != url } + [known.learned(from: fetched, wall: wall)]
        return StoredAccess(answer: fetched.bytes, control: url, user: user, receivedAt: wall)
    }

    /// A question was in vain.
    mutating func failed(
        retryAfter: Duration, now: NIODeadline, random: inout some RandomNumberGenerator
    ) {
        let rest = Self.restAfterFailure.nanoseconds
        let jittered = Duration.nanoseconds(rest + Int64.random(in: 0...rest, using: &random))
        restsUntil = now + TimeAmount(max(jittered, retryAfter))
        mustWaitUntil = retryAfter > .zero ? now + TimeAmount(retryAfter) : nil
    }

    /// A node sent this client away, or none of them could be reached: the next attempt asks first.
    mutating func doubt(_ reason: Doubt) { if reasonToDoubt != .sentAway { reasonToDoubt = reason } }

    /// The device is in another network: that none of them could be reached may have been the one before.
    mutating func networkChanged() { if reasonToDoubt == .unreached { reasonToDoubt = nil } }

    /// The answer was for somebody else.
    mutating func forget() {
        answer = nil
        user = nil
        holder = nil
        freshUntil = nil
        reasonToDoubt = nil
        restsUntil = nil
    }

    /// Whether it was said for somebody else than this token's holder. A token that doesn't tell is taken for the same one's.
    func isForAnother(than token: String) -> Bool {
        if let holder, let present = TokenHolder.read(from: token) { return holder != present }
        guard let user, let subject = TokenSubject.read(from: token) else { return false }
        return subject != user
    }

    func isFresh(now: NIODeadline) -> Bool { reasonToDoubt == nil && isWithinLifetime(now: now) }

    func isWithinLifetime(now: NIODeadline) -> Bool { answer != nil && freshUntil.map { now < $0 } ?? false }

    /// Whether an attempt asks before it connects.
    /// - Parameters:
    ///   - hasOther: there are access points to go to without an answer.
    ///   - isReturn: the device only comes back by another path, to where it was connected: that needs no fresh answer.
    func isDue(now: NIODeadline, hasOther: Bool, isReturn: Bool) -> Bool {
        guard !isFresh(now: now) else { return false }
        if isReturn, answer != nil, reasonToDoubt == nil { return false }
        if answer == nil && !hasOther { return true }
        return restsUntil.map { now >= $0 } ?? true
    }

    /// Whether the control layer asked to be left alone.
    func mustWait(now: NIODeadline) -> Bool { mustWaitUntil.map { now < $0 } ?? false }

    /// How long ago the answer came, by the wall clock; zero if that was set back.
    func age(wall: UInt64) -> Duration? { answer.map { _ in Self.span(wall > receivedAt ? wall - receivedAt : 0) } }

    private static func span(_ milliseconds: UInt64) -> Duration { .milliseconds(Int64(min(milliseconds, 1 << 50))) }
}
