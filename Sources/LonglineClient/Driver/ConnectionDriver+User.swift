import Logging
import LonglineWire
import NIOCore

/// Whose device this is, which the app, a token or the first connection tells. It names the inbox that direct messages are
/// published to.
extension ConnectionDriver {
    func learnUser(fromToken token: String) {
        if user == nil, let subject = TokenSubject.read(from: token) { learn(subject) }
    }

    /// The service took a token: whose device it is is kept from now on. Of one that it may refuse, or of the app's word alone, nothing is
    /// kept: a login that is not for what is stored would make that its own.
    func keepDevice(of credential: Credential) {
        guard !isDeviceStored, case .token(let token) = credential, let device = TokenSubject.device(from: token) else {
            return
        }
        isDeviceStored = true
        ownerDevice = device
        pending.device = device
    }

    func learnUser(fromChannel channel: ChannelID) {
        if user == nil, case .user(let inbox) = channel { learn(inbox) }
    }

    private func learn(_ user: UserID) {
        self.user = user
        owner = user
        pending.user = user
        resolveUserWaiters(nil)
    }

    /// Stops where the app or its token names another user or device than the one whose messages are stored: they would leave in the
    /// other's name, and what the service has entered of them already would be entered once more, as numbers count for each device. The
    /// service verifies the token, and one that can't be read is taken for this user's.
    /// - Parameter token: nil: it is the app's word alone that counts.
    /// - Returns: whether it did.
    func stopsForOtherUser(token: String?) -> Bool {
        guard let error = otherUser(token: token) else { return false }
        stop(forOtherUser: error)
        return true
    }

    func stop(forOtherUser error: ClientError) {
        logger.error("the login is not for what is stored", metadata: ["reason": "\(error.message)"])
        statistics.failedAttempts += 1
        stop(.credentialInvalid, reason: error.message, cause: error)
    }

    /// The error where the app or its token names another user, or another device, than the one whose messages are stored.
    func otherUser(token: String?) -> ClientError? {
        let named = [token.flatMap { TokenSubject.read(from: $0) }, configuration.user].compactMap { $0 }
        guard let owner, let other = named.first(where: { $0 != owner }) else { return otherDevice(token: token) }
        return ClientError.otherUser(stored: owner, login: other)
    }

    private func otherDevice(token: String?) -> ClientError? {
        let named = [token.flatMap { TokenSubject.device(from: $0) }, configuration.device].compactMap { $0 }
        guard let ownerDevice, let other = named.first(where: { $0 != ownerDevice }) else { return nil }
        return ClientError.otherDevice(stored: ownerDevice, login: other)
    }

    /// Calls `done` once the user is known: gets a token for that, one for all who wait. A connection may be faster.
    func afterUserIsKnown(_ done: @escaping (ClientError?) -> Void) {
        if user != nil { return done(nil) }
        userWaiters.append(done)
        guard userWaiters.count == 1 else { return }
        lastUserQuestion += 1
        let question = lastUserQuestion
        let arrived = hop { (driver: ConnectionDriver, token: Result<String, any Error>) in
            guard driver.user == nil, driver.lastUserQuestion == question, !driver.userWaiters.isEmpty else { return }
            switch token {
            case .success(let token):
                driver.learnUser(fromToken: token)
                driver.resolveUserWaiters(
                    ClientError(
                        .unknownUser, message: "the token does not tell which user this is",
                        advice: "connect once, or name the user in the configuration"))
            case .failure(let error):
                driver.resolveUserWaiters(
                    ClientError(
                        .tokenProvider, message: "no token, and without one it isn't known which user this is",
                        cause: error, advice: "the token provider's error says more"))
            }
        }
        userQuestion = askForToken(arrived)
    }

    func resolveUserWaiters(_ error: ClientError?) {
        let waiters = userWaiters
        userWaiters = []
        userQuestion?.cancel()
        userQuestion = nil
        for waiter in waiters { waiter(error) }
    }
}

extension ClientError {
    static func otherUser(stored: UserID, login: UserID) -> ClientError {
        ClientError(
            .otherUser, message: "what is stored is \(stored)'s, and the login is \(login)'s",
            advice: "log out before another user logs in, or give each user a storage of their own",
            closeCode: .credentialInvalid)
    }

    static func otherDevice(stored: DeviceID, login: DeviceID) -> ClientError {
        ClientError(
            .otherDevice, message: "what is stored is the device \(stored)'s, and the login is that of \(login)",
            advice: "log out before the storage becomes another device's, or give each device a storage of its own",
            closeCode: .credentialInvalid)
    }
}
