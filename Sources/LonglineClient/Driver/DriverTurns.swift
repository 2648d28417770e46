/// The driver of the moment, and the end of the one before it.
///
/// ```
///            handle()              ready
///   (none) ------------> opening ---------> open
///     ^ ^                   | failed          | end
///     | '-------------------'                 v
///     '------ it is retired, and its ------ ending
///             outbox is given up
/// ```
/// Once the client has ended for good there is no other.
///
/// Only a shared outbox has an end before the client's. A driver that is asked for meanwhile opens when that is over: before, it
/// would find the ownership that is about to be given up.
struct DriverTurns {
    /// Makes the driver, or made it.
    private(set) var task: Task<DriverHandle, any Error>?
    /// It is made: from now on it tells who reads that the client was disconnected.
    private(set) var isOpen = false
    /// Ends the one before.
    private(set) var ending: Task<Void, Never>?
    /// Why nobody gets a driver any more.
    private(set) var closed: ClientError?
    /// Disconnections that the app asked for. Calls that wait for a driver go on in any order: by this one to connect knows whether
    /// the app has thought better of it.
    private(set) var disconnections: UInt64 = 0

    /// The client has ended for good. The first reason counts.
    mutating func close(_ error: ClientError) { closed = closed ?? error }

    /// The app disconnects: who wanted to connect before does so no more.
    mutating func disconnect() { disconnections += 1 }

    /// Why somebody who wanted to connect when there were so many disconnections does so no more; nil: there was no other.
    func disconnection(since disconnections: UInt64?) -> ClientError? {
        guard let disconnections, disconnections != self.disconnections else { return nil }
        return ClientError(.disconnected, message: "the client was disconnected")
    }

    /// The driver of the moment; one that nobody asked for before opens when the end of the last is over.
    /// - Parameter open: is told how many disconnections there were when it was asked for: those behind concern the driver that it makes.
    mutating func current(
        since disconnections: UInt64?, _ open: @escaping @Sendable (UInt64) async throws -> DriverHandle
    ) throws(ClientError) -> Task<DriverHandle, any Error> {
        if let closed { throw closed }
        if let error = disconnection(since: disconnections) { throw error }
        if let task { return task }
        let (ending, before) = (ending, self.disconnections)
        let opening = Task {
            await ending?.value
            return try await open(before)
        }
        task = opening
        return opening
    }

    /// It was made.
    /// - Throws: after a logout, which didn't wait for it: what it is made of is being wiped.
    mutating func opened() throws(ClientError) {
        if let closed, closed.code == .loggedOut { throw closed }
        isOpen = true
    }

    /// It could not be made.
    mutating func failed(_ opening: Task<DriverHandle, any Error>) { if task == opening { task = nil } }

    /// Nobody gets the driver of the moment any more. `body` ends it, whoever stops to wait for that.
    mutating func end(
        _ body: @escaping @Sendable (Task<DriverHandle, any Error>?) async -> Void
    ) -> Task<Void, Never> {
        let (last, earlier) = (task, ending)
        let end = Task {
            await earlier?.value
            await body(last)
        }
        (task, ending) = (nil, end)
        isOpen = false
        return end
    }
}
