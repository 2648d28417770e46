import LonglineWire
import NIOCore

/// What happens to accounts, in few runs: the app's own server publishes for them, asking again for what it got no answer to, and it or
/// one of their devices has them erased.
extension SessionSimulation {
    func draw(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &extra) }

    /// Whether the server is killed now, at a moment that matters.
    func killsServer(_ probability: Double) -> Bool { !isCalm && !isOrderingMany && extra.happens(probability) }

    /// The names of a user's devices.
    func names(of user: UserID) -> [DeviceID] { devices.filter { $0.user == user }.map(\.device) }

    func accountChaos() {
        let erases = extra.happens(0.2)
        if extra.happens(erases ? 0.6 : 0.15) { orderRepeatedly() }
        guard erases else { return }
        let user = devices[[0, 2, 3][Int(draw(0...2))]].user
        let isOwn = extra.happens(0.4)
        scheduler.after(.milliseconds(draw(300...1_500))) { [weak self] in self?.erase(user, isOwn: isOwn) }
    }

    // MARK: Publishes

    private func orderRepeatedly() {
        scheduler.after(.milliseconds(draw(20...220))) { [weak self] in
            guard let self, !isCalm else { return }
            order(from: writers[Int(draw(0...3))])
            orderRepeatedly()
        }
    }

    /// In whose name the app's server publishes.
    private var writers: [UserID] { [devices[0].user, devices[2].user, devices[3].user, shop] }

    private func order(from sender: UserID) {
        let channel: ChannelID =
            switch draw(0...9) {
            case 0: .all(news)
            case 1..<5: .room(rooms[Int(draw(0...1))])
            default: .user(writers[Int(draw(0...2))])
            }
        order(from: sender, in: channel)
    }

    /// The server died before a message was answered: before that is asked for again more are published for its sender there, once in
    /// a run at most, than the ledger remembers.
    func orderMany(like first: ServiceOrder) {
        guard !hasOrderedMany, extra.happens(0.7) else { return }
        hasOrderedMany = true
        scheduler.after(.milliseconds(draw(0...5))) { [weak self] in
            guard let self, !isCalm else { return }
            counts.serviceBursts += 1
            // Else the server would hardly ever take all of them.
            isOrderingMany = true
            for _ in 0..<SimulatedStore.remembered + 6 { order(from: first.sender, in: first.channel) }
            isOrderingMany = false
        }
    }

    private func order(from sender: UserID, in channel: ChannelID) {
        var payload = ByteBuffer(integer: nextOrder)
        payload.writeRepeatingByte(7, count: Int(draw(0...(extra.happens(0.1) ? 1_500 : 40))))
        let order = ServiceOrder(number: nextOrder, sender: sender, channel: channel, payload: payload)
        nextOrder += 1
        counts.serviceOrders += 1
        checker.services.ordered(order)
        ask(order)
    }

    /// Asks for a message until there is an answer, and once more now and then.
    private func ask(_ order: ServiceOrder, isRepeat: Bool = false) {
        guard order.number >= firstOrder, isRepeat || !settledOrders.contains(order.number) else { return }
        server.control.publish(order) { [weak self] answer in
            guard let self else { return }
            // Some answers are lost on their way.
            guard isCalm || !extra.happens(0.15) else { return }
            note { "message \(order.number) of the app's server: \(answer)" }
            if let problem = checker.services.answered(order, answer, truth: store.durable) { violation(problem) }
            if answer != .later { settledOrders.insert(order.number) }
            guard case .entered = answer, !isCalm, extra.happens(0.4) else { return }
            askAgain(order, within: 20...900, isRepeat: true)
        }
        scheduler.after(.milliseconds(draw(30...300))) { [weak self] in
            guard let self, !settledOrders.contains(order.number) else { return }
            askAgain(order, within: 0...30, isRepeat: false)
        }
    }

    private func askAgain(_ order: ServiceOrder, within range: ClosedRange<Int64>, isRepeat: Bool) {
        scheduler.after(.milliseconds(draw(range))) { [weak self] in
            self?.counts.serviceRepeats += 1
            self?.ask(order, isRepeat: isRepeat)
        }
    }

    // MARK: Erasures

    /// The app's own server has an account erased, or a device of its user its own, and asks until that is resolved.
    private func erase(_ user: UserID, isOwn: Bool) {
        guard !isCalm, !store.erasedUsers.contains(user) else { return }
        note { "the account of \(user) is to be erased" }
        if isOwn {
            devices.first { $0.user == user && !$0.isOver }?.eraseAccount()
        } else if server.erase(user) {
            return
        }
        scheduler.after(.milliseconds(draw(30...200))) { [weak self] in self?.erase(user, isOwn: isOwn) }
    }

    /// A device of an account that is or was being erased is logged in once more.
    private func logInAnew(_ user: UserID) {
        guard !isCalm, let old = devices.first(where: { $0.user == user }) else { return }
        counts.newAccounts += 1
        let highest = devices.filter { $0.user == user }.map(\.login).max() ?? 0
        addDevice(user, old.device, login: nextLogin(of: user, after: highest + 9)).connect()
    }

    /// It is on the disk that an account is erased: what its devices hear from now on doesn't count any more.
    func erasureResolved(_ user: UserID) {
        counts.erasures += 1
        for device in devices where device.user == user {
            device.isErased = true
            device.sawErasure = true
        }
        checker.erasing(user, apps: devices.filter { $0.user == user }.map(\.app))
        // Much of what comes now comes while the erasure is under way.
        if extra.happens(0.7) {
            let wait = draw(extra.happens(0.3) ? 0...20 : 40...250)
            scheduler.after(.milliseconds(wait)) { [weak self] in
                guard let self, !isCalm else { return }
                order(from: user)
            }
        }
        guard extra.happens(0.8) else { return }
        let wait = draw(extra.happens(0.5) ? 0...20 : 5...700)
        scheduler.after(.milliseconds(wait)) { [weak self] in self?.logInAnew(user) }
    }

    /// Nothing is left of an account.
    func accountErased(_ user: UserID) {
        note { "the account of \(user) is erased" }
        highestLogins = highestLogins.filter { $0.key.user != user }
        checker.services.erased(user)
    }

    /// In the end every erasure was brought to its end, and each device has heard of it.
    func checkErasures() {
        for user in store.erasing { violation("the erasure of \(user) never came to its end") }
        for device in devices where device.isErased && !device.isOver {
            violation("\(device.device) \(device.app.number) never heard that its account was erased")
        }
    }
}
