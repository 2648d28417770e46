import LonglineWire
import NIOCore

/// Large payloads on their way in.
extension ServerSession {
    /// A publish that goes on in parts.
    /// - Parameter refusal: why it is refused already.
    mutating func beginParts(
        _ publish: Publish, lane: LaneID, channel: ChannelID, refusal: RefusalCode?, now: NIODeadline
    ) {
        // What is refused takes no memory; its sender, once told, may begin another before the end of this one is here.
        guard arriving.values.count(where: \.isGathering) < FrameLimits.maximumPayloadsInParts || refusal != nil else {
            return violated(.limitExceeded, "too many payloads in parts at once", now: now)
        }
        var state = ArrivingPublish.State.passingOver(received: UInt64(publish.payload.readableBytes))
        var code = refusal
        if refusal == nil {
            do throws(PayloadAssembly.Problem) {
                state = .gathering(
                    try PayloadAssembly(
                        head: publish.payload, length: Int(clamping: publish.length), account: payloadAccount))
            } catch {
                code = .overloaded
            }
        }
        var head = publish
        head.payload = ByteBuffer()
        arriving[lane] = ArrivingPublish(
            channel: channel, publish: head, length: publish.length, startedAt: now, lastPart: now, state: state)
        modify(channel) { $0.gate.admit(publish) }
        if let refusal, let producer, mayBeEntered(publish, channel) {
            head.following = 0
            return actions.append(.refuse(channel: channel, producer: producer, publish: head, code: refusal))
        }
        if let code { refuse(publish.id, channel: channel, code, now: now) }
    }

    private var payloadAccount: PayloadAssembly.Account? {
        identity.map { identity in
            PayloadAssembly.Account(
                budget: configuration.payloadBudget,
                owner: PayloadBudget.Owner(tenant: identity.tenant, user: identity.user))
        }
    }

    /// The next bytes of a payload.
    mutating func processPart(_ part: Part, lane: LaneID, now: NIODeadline) {
        // Out of the table while it is changed, so that its buffer has one owner.
        guard var publish = arriving.removeValue(forKey: lane) else {
            return violated(.unexpectedFrame, "a part of nothing", now: now)
        }
        guard !part.isEnd else { return abandon(publish, now: now) }
        publish.lastPart = now
        switch publish.state {
        case .passingOver(let received):
            let end = received &+ UInt64(part.bytes.readableBytes)
            guard part.offset == received, end <= publish.length else {
                return violated(.unexpectedFrame, "a part out of its place", now: now)
            }
            guard end < publish.length else { return }
            publish.state = .passingOver(received: end)
        case .gathering(var assembly):
            publish.state = .passingOver(received: 0)
            do throws(PayloadAssembly.Problem) {
                try assembly.append(part)
                if assembly.isWhole { return complete(publish, assembly.bytes, now: now) }
                publish.state = .gathering(assembly)
            } catch .noRoom {
                giveUp(&publish, received: UInt64(assembly.received + part.bytes.readableBytes), now: now)
                if assembly.received + part.bytes.readableBytes == assembly.length { return }
            } catch {
                return violated(.unexpectedFrame, "a part out of its place", now: now)
            }
        }
        arriving[lane] = publish
    }

    /// The client's lane ended, perhaps inside a payload.
    mutating func endParts(lane: LaneID, now: NIODeadline) {
        if let publish = arriving.removeValue(forKey: lane) { abandon(publish, now: now) }
    }

    private mutating func abandon(_ publish: ArrivingPublish, now: NIODeadline) {
        if publish.isGathering { refuse(publish.publish.id, channel: publish.channel, .incomplete, now: now) }
    }

    private mutating func complete(_ arrived: ArrivingPublish, _ payload: ByteBuffer, now: NIODeadline) {
        guard let producer else { return }
        var publish = arrived.publish
        publish.payload = payload
        publish.following = 0
        if publish.timeToLive > 0 {
            // It counts from the moment at which the publish left, and 0 is for ever: only the ledger knows whether an
            // earlier copy was entered.
            let took = UInt64(max(0, (now - arrived.startedAt).nanoseconds) / 1_000_000)
            publish.timeToLive = publish.timeToLive > took ? publish.timeToLive - took : 1
        }
        actions.append(.append(channel: arrived.channel, producer: producer, publish: publish))
    }

    private mutating func refuse(_ id: PublishID, channel: ChannelID, _ code: RefusalCode, now: NIODeadline) {
        let retryAfter = code == .overloaded ? configuration.payloadRetryAfter.wholeMilliseconds : 0
        let refused = Refused(id: id, code: code, retryAfter: retryAfter)
        modify(channel) { _ = $0.gate.answer(id, .refused(refused)) }
        sendAnswers(channel, now: now)
    }

    private mutating func giveUp(_ publish: inout ArrivingPublish, received: UInt64, now: NIODeadline) {
        publish.state = .passingOver(received: received)
        refuse(publish.publish.id, channel: publish.channel, .overloaded, now: now)
    }

    // MARK: Time

    /// When the next payload has been without a part for too long, or under way.
    var partsDeadline: NIODeadline? { arriving.values.filter(\.isGathering).map(deadline).min() }

    private func deadline(of publish: ArrivingPublish) -> NIODeadline {
        // Who sends a byte now and then holds memory no longer than who sends at the least rate.
        let seconds = Int64(clamping: publish.length / UInt64(max(1, configuration.minimumPartRate)))
        let whole = publish.startedAt + configuration.partTimeout + .seconds(min(seconds, 1 << 30))
        return min(publish.lastPart + configuration.partTimeout, whole)
    }

    /// What stands still gives its memory back.
    mutating func dropStalledParts(now: NIODeadline) {
        for lane in arriving.keys.sorted() {
            guard var publish = arriving[lane], case .gathering(let assembly) = publish.state,
                now >= deadline(of: publish)
            else { continue }
            giveUp(&publish, received: UInt64(assembly.received), now: now)
            arriving[lane] = publish
        }
    }
}

extension TimeAmount {
    /// Milliseconds, rounded down; 0 for a negative amount.
    var wholeMilliseconds: UInt64 { UInt64(max(0, nanoseconds / 1_000_000)) }
}
