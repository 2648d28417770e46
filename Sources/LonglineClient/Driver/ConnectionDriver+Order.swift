/// The order of the app's calls to connect and to disconnect.
///
/// Each waits for the driver before it comes to the loop, so that one may overtake another. A disconnection is known by its number,
/// and a call to connect by how many there were before it: what was asked for last holds.
extension ConnectionDriver {
    /// Connects, behind so many disconnections. One that has not come to the loop by now is done before, and ends nothing when it comes.
    func connect(after disconnections: UInt64, isNews: Bool = true, _ done: ((ClientError?) -> Void)?) -> UInt64 {
        if disconnections > self.disconnections { disconnect(disconnections) {} }
        return connect(isNews: isNews, done)
    }

    /// The same for one call of the app's that comes twice, in any order: once from who contends for a shared outbox, once from who waits.
    /// The first of them is news.
    /// - Parameter wish: its number; nil: what has begun the attempts of an outbox of the client's own was here before.
    func connect(after disconnections: UInt64, wish: UInt64?, _ done: ((ClientError?) -> Void)?) -> UInt64 {
        let isNews = wish.map { $0 > lastWish } ?? false
        lastWish = max(lastWish, wish ?? 0)
        return connect(after: disconnections, isNews: isNews, done)
    }

    /// - Parameter number: which of the app's disconnections it is.
    func disconnect(_ number: UInt64, _ done: @escaping () -> Void) {
        guard number <= disconnections else {
            disconnections = number
            return disconnect(done)
        }
        // It was done for a call behind it; the farewell may be under way.
        if disconnectWaiters.isEmpty { done() } else { disconnectWaiters.append(done) }
    }
}
