import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// A message that the app's own server has published under an idempotency key.
struct ServiceOrder {
    /// The key, and the message's number.
    let number: UInt64
    let sender: UserID
    /// A room, a broadcast, or the inbox of who gets a direct message.
    let channel: ChannelID
    let payload: ByteBuffer

    var recipient: UserID? { if case .user(let user) = channel, user != sender { user } else { nil } }
    /// The log that it is entered in.
    var log: ChannelID { if case .user = channel { .user(sender) } else { channel } }
}

/// What the app's own server is told of a message.
enum ServiceAnswer: Equatable {
    case entered(ChannelPosition)
    /// Not entered; the key may be used again.
    case refused(RefusalCode)
    /// Nobody knows.
    case unknown
    /// Not now: the same request is under way, there is no room, or the sender's account is being erased.
    case later
}

/// The control layer of a simulation: enters each message of the app's own server once, however often that asks. What it remembers is
/// in a database of its own, which is written apart from the store.
final class ModelControl {
    private enum State: Equatable {
        case begun
        case done(ChannelPosition)
        /// The sender's account was erased, and the answer with it.
        case erased
    }

    private struct Row {
        var number: PublishID
        let sender: UserID
        var state = State.begun
    }

    private struct Request {
        let order: ServiceOrder
        let answer: (ServiceAnswer) -> Void
        /// Begun by an earlier request: it may have been entered.
        var isResumed = false
    }

    private unowned let server: ModelServer
    /// What is in its database.
    private var rows: [UInt64: Row] = [:]
    private var lastNumber: PublishID = 0
    /// What only the process knows.
    private var underWay: Set<UInt64> = []

    /// How many others may overtake a request.
    private static let attempts = 8

    init(server: ModelServer) { self.server = server }

    /// The process was killed.
    func restarted() {
        underWay = []
        if server.has(.forgetKeys) { rows = rows.filter { $0.value.state != .begun } }
    }

    /// An account is erased: what was answered about its messages goes. The keys stay.
    func forget(_ user: UserID) {
        guard !server.has(.keepAnswersOfErased) else { return }
        for (key, row) in rows where row.sender == user { rows[key]?.state = .erased }
    }

    /// Publishes a message, or says what became of it when it was asked for before.
    func publish(_ order: ServiceOrder, answer: @escaping (ServiceAnswer) -> Void) {
        guard underWay.insert(order.number).inserted else { return answer(.later) }
        var request = Request(order: order, answer: answer)
        switch rows[order.number]?.state {
        case .done(let place)?:
            var place = place
            if server.has(.answerAnew), let head = server.store.head(place.channel) { place.position = head.position }
            return end(request, .entered(place))
        case .erased?: return end(request, .unknown)
        case .begun?: request.isResumed = true
        case nil: break
        }
        guard !server.isDiskFull else { return end(request, .later) }
        if !request.isResumed {
            guard server.write({ begin(order) }) != nil else { return }
            if server.simulation.killsServer(0.03) { return server.kill() }
        } else if server.has(.renumberResumed) {
            renumber(order)
        }
        if server.store.isErasing(order.sender), !server.has(.publishForErased) { return giveUp(request, .later) }
        enter(request, isRepeated: request.isResumed, attempts: Self.attempts)
    }

    // MARK: The database

    private func nextNumber() -> PublishID {
        lastNumber = max(lastNumber + 1, server.simulation.wall.milliseconds)
        return lastNumber
    }

    private func begin(_ order: ServiceOrder) {
        rows[order.number] = Row(number: nextNumber(), sender: order.sender)
    }

    private func renumber(_ order: ServiceOrder) {
        let number = nextNumber()
        rows[order.number]?.number = number
    }

    private func keep(_ place: ChannelPosition, of order: ServiceOrder) {
        if rows[order.number]?.state == .begun { rows[order.number]?.state = .done(place) }
    }

    private func release(_ order: ServiceOrder) { rows[order.number] = nil }

    // MARK: One request

    private func end(_ request: Request, _ answer: ServiceAnswer) {
        underWay.remove(request.order.number)
        request.answer(answer)
    }

    /// Nothing was entered: the key is free again, unless an earlier request may have done it.
    private func giveUp(_ request: Request, _ answer: ServiceAnswer) {
        if !request.isResumed, !server.isDiskFull {
            guard server.write({ release(request.order) }) != nil else { return }
        }
        end(request, answer)
    }

    private func enter(_ request: Request, isRepeated: Bool, attempts: Int) {
        guard attempts > 0, let row = rows[request.order.number] else { return giveUp(request, .later) }
        server.publish(request.order, as: row.number) { [weak self] outcome in
            self?.take(outcome, of: request, isRepeated: isRepeated, attempts: attempts)
        }
    }

    private func take(_ outcome: PublishOutcome, of request: Request, isRepeated: Bool, attempts: Int) {
        switch outcome {
        case .published(let published):
            if server.simulation.killsServer(0.06) {
                server.kill()
                return server.simulation.orderMany(like: request.order)
            }
            let place = ChannelPosition(channel: request.order.log, position: published.position)
            // What can't be kept is answered all the same: it was done.
            if !server.isDiskFull {
                guard server.write({ keep(place, of: request.order) }) != nil else { return }
            }
            end(request, .entered(place))
        case .refused(let refused) where mayRenumber(after: refused.code, isRepeated: isRepeated):
            // A later number went first.
            guard !server.isDiskFull else { return giveUp(request, .later) }
            guard server.write({ renumber(request.order) }) != nil else { return }
            enter(request, isRepeated: false, attempts: attempts - 1)
        case .refused(let refused) where refused.code == .outcomeUnknown: end(request, .unknown)
        case .refused(let refused): giveUp(request, refused.code.isTemporary ? .later : .refused(refused.code))
        }
    }

    /// Whether a number that was refused so certainly entered nothing.
    private func mayRenumber(after code: RefusalCode, isRepeated: Bool) -> Bool {
        code == .idReused || code == .outcomeUnknown && (!isRepeated || server.has(.renumberForgotten))
    }
}
