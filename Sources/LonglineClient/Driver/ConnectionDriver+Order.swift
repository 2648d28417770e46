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
