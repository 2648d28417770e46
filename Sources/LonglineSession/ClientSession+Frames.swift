import LonglineWire
import NIOCore

/// What the server says.
extension ClientSession {
    private static let maximumRoomRequests = 16
    /// New channels that a service may name to a device; hardly anybody is in a hundredth as many.
    static let maximumChannels = 65_536

    /// Before CONNECTED: lanes may overtake it, so what they carry is held.
    mutating func receivedEarly(_ frame: Frame, lane: LaneID, now: NIODeadline) {
        guard lane == .control else { return hold(.frame(frame, lane: lane), now: now) }
        switch frame {
        case .connected(let connected): accept(connected, now: now)
        case .close(let close): end(SessionEnd(close: close, byServer: true), tellPeer: false)
        case .ahead(let ahead): noteAhead(ahead, now: now)
        default: violated(.unexpectedFrame, "CONNECTED must be the first frame", now: now)
        }
    }

    mutating func hold(_ item: HeldFrames.Item, now: NIODeadline) {
        if !held.hold(item) { violated(.internalError, "too much before CONNECTED", now: now) }
    }

    private mutating func accept(_ connected: Connected, now: NIODeadline) {
        guard configuration.versions.contains(connected.version) else {
            return violated(.versionUnsupported, "a version that was not offered", now: now)
        }
        phase = .connected
        namesAll = false
        connectBy = nil
        limits = connected.limits
        // What waits for the app is bounded by more than the server's word.
        limits?.channelWindow = min(connected.limits.channelWindow, UInt64(FrameLimits.maximumChannelWindow))
        observedAddress = connected.observedAddress
        takeCursorVersion(connected)
        if configuration.heartbeat.search == nil { learner = nil }
        learner?.bound(minimum: connected.limits.minimumHeartbeat, idleTimeout: connected.limits.idleTimeout)
        let policy = configuration.heartbeat
        heartbeat = Heartbeat(
            policy: policy,
            interval: policy.interval(
                minimum: connected.limits.minimumHeartbeat, idleTimeout: connected.limits.idleTimeout),
            canProbe: supportsPathChange, now: now)
        actions.append(.connected(connected))
        claimUnknownCursors(connected.channels, now: now)
        noteHeads(connected.channels, now: now)
        while phase == .connected, let item = held.next() {
            switch item {
            case .frame(let frame, let lane): process(frame, lane: lane, now: now)
            case .finished(let lane): processFinished(lane, now: now)
            }
        }
        publishAll(now: now)
    }

    /// The server knows the cursors that CONNECT carried. One that had missed entries is said again on the next link all
    /// the same: a server whose own cursor is further ahead (this device was restored from a backup) would go on from there,
    /// and what was not received yet would never come. So is one of a channel that is missing in an answer with room for it: the
    /// credential does not allow it now, and it may be in the next one.
    private mutating func takeCursorVersion(_ connected: Connected) {
        if connected.cursorVersion < cursorVersion {
            // The server's record is an older one: it has to learn everything again.
            movedCursors = Set(cursors.keys)
        }
        let heads = Dictionary(
            connected.channels.map { ($0.channel, $0.head) }, uniquingKeysWith: { first, _ in first })
        for (channel, position) in connectCursors {
            guard let receiver = channels[channel]?.receiver, receiver.claim == position else { continue }
            if let head = heads[channel] {
                if let last = receiver.last, last.epoch == head.epoch, last.offset < head.offset { continue }
            } else if connected.channels.count < FrameLimits.maximumCursors {
                continue
            }
            movedCursors.remove(channel)
        }
        cursorVersion = connected.cursorVersion
    }

    /// A device restored from a backup may have no place in a channel where the server remembers one: nothing that lies
    /// before that place would ever come, so the next CONNECT says that we start at the beginning.
    private mutating func claimUnknownCursors(_ answers: [ChannelAnswer], now: NIODeadline) {
        var isBehind = false
        for answer in answers where answer.recovery == .recovered && answer.head.epoch != 0 {
            guard channels[answer.channel]?.receiver.last == nil else { continue }
            guard knows(answer.channel, now: now) else { return }
            modify(answer.channel) { $0.receiver.opened(epoch: answer.head.epoch) }
            claim(answer.channel)
            isBehind = true
        }
        if isBehind { close(Close(code: .normal, reason: "resuming from this device's own cursors"), now: now) }
    }

    /// A log that ends before what came lost its end. The server's GAP tells that only where its cursor of this device is beyond the end:
    /// it does not know what waits for the app, and a record that is as old as the log knows of no more than that.
    private mutating func noteHeads(_ answers: [ChannelAnswer], now: NIODeadline) {
        guard phase == .connected else { return }
        for answer in answers {
            let channel = answer.channel
            let before = channels[channel]?.receiver.confirmed
            guard let gap = modify(channel, { $0.receiver.logEnds(at: answer.head) }) ?? nil else { continue }
            // No frame of the server's: nothing of the window is taken by it.
            actions.append(.gap(channel: channel, epoch: answer.head.epoch, gap))
            if channels[channel]?.receiver.confirmed != before { cursorMoved(channel, now: now) }
        }
    }

    /// From now on CONNECT names the channel: before all others, as it has no room for more than so many.
    private mutating func claim(_ channel: ChannelID) {
        claimedChannels.removeAll { $0 == channel }
        claimedChannels.insert(channel, at: 0)
    }

    mutating func process(_ frame: Frame, lane: LaneID, now: NIODeadline) {
        if lane == .control { return processControl(frame, now: now) }
        do throws(InboundLanes.Problem) {
            if isHistory(frame, lane: lane) {
                try processHistory(frame, lane: lane, now: now)
            } else if case .lane(let header) = frame {
                try inbound.opened(lane, header)
                opened(header, now: now)
            } else {
                processOnLane(frame, lane: lane, header: try inbound.header(lane), now: now)
            }
        } catch {
            violated(error, now: now)
        }
    }

    private mutating func processControl(_ frame: Frame, now: NIODeadline) {
        let settings = roomSettings
        roomSettings = nil
        if processConversations(frame) { return }
        switch frame {
        case .close(let close):
            end(SessionEnd(close: close, byServer: true), tellPeer: false)
        case .pong(let pong):
            if pong.observedAddress != observedAddress {
                observedAddress = pong.observedAddress
                actions.append(.observedAddress(pong.observedAddress))
            }
            answered(pong, now: now)
        case .ticket(let ticket):
            actions.append(.storeTicket(ticket))
        case .refreshed(let refreshed):
            actions.append(.refreshed(refreshed.credentialExpiry))
            isRefreshing = false
            if let token = nextToken {
                nextToken = nil
                _ = refresh(token: token, now: now)
            }
        case .presence(let update):
            actions.append(.presence(update))
        case .presenceAnswer(let answer):
            processPresence(answer)
        case .erasureRefused(let refusal):
            actions.append(.erasureRefused(refusal))
        case .signal(let signal):
            processSignal(signal, now: now)
        case .stopped(let stopped):
            actions.append(.stopped(stopped.channel))
        case .behind(let lag):
            actions.append(.behind(lag))
        case .roomSettings(let settings):
            roomSettings = settings
        case .roomAnswer(let answer):
            if roomRequests.remove(answer.request) != nil { actions.append(.roomAnswered(answer, settings)) }
        case .membersPage(let page):
            if memberRequests.remove(page.request) != nil { actions.append(.members(page, settings)) }
        default:
            violated(.unexpectedFrame, "a frame that has no place on the control lane", now: now)
        }
    }

    private mutating func processOnLane(_ frame: Frame, lane: LaneID, header: LaneHeader, now: NIODeadline) {
        let channel = header.channel
        let epoch = header.epoch
        if let problem = objection(to: frame, lane: lane, epoch: epoch) {
            return violated(.unexpectedFrame, problem, now: now)
        }
        switch frame {
        case .batch(let batch):
            guard configuration.acceptsBatches(of: channel) else {
                return violated(.unexpectedFrame, "a batch that was not asked for", now: now)
            }
            do throws(FrameError) {
                for frame in try batch.frames() where phase == .connected {
                    processOnLane(frame, lane: lane, header: header, now: now)
                }
            } catch {
                close(error.close, now: now)
            }
        case .part(let part):
            guard let deliver = assemble(part, lane: lane, now: now) else { return }
            processOnLane(.deliver(deliver), lane: lane, header: header, now: now)
        case .deliver(let deliver) where deliver.entry.following > 0:
            guard keepsWindow(channel, epoch: epoch, now: now) else { return }
            beginAssembly(deliver, lane: lane, now: now)
        case .published(let published):
            endParts(of: published.id, in: channel, now: now)
            if modify(channel, { $0.queue.published(published.id) }) == true {
                actions.append(.published(channel: channel, published))
            }
            answered(channel, now: now)
        case .refused(let refused):
            processRefused(refused, channel: channel, now: now)
        case .deliver(let deliver):
            guard keepsWindow(channel, epoch: epoch, now: now) else { return }
            let result = modify(channel) { $0.receiver.receive(deliver, epoch: epoch) }
            if take(result, channel: channel, epoch: epoch, now: now) {
                let position = Position(epoch: epoch, offset: deliver.entry.offset)
                modify(channel) { $0.unconfirmed.took(position, cost: FrameCost.of(deliver.entry)) }
                actions.append(.deliver(channel: channel, epoch: epoch, deliver))
            }
        case .skip(let skip):
            guard keepsWindow(channel, epoch: epoch, now: now) else { return }
            let result = modify(channel) { $0.receiver.receive(skip, epoch: epoch) }
            if take(result, channel: channel, epoch: epoch, now: now) {
                let position = Position(epoch: epoch, offset: skip.to)
                modify(channel) { $0.unconfirmed.took(position, cost: FrameCost.overhead) }
                actions.append(.skipped(channel: channel, epoch: epoch, skip))
                if modify(channel, { $0.receiver.confirmAbsent() }) == true { cursorMoved(channel, now: now) }
            }
        case .gap(let gap):
            guard keepsWindow(channel, epoch: epoch, now: now) else { return }
            take(gap, channel: channel, epoch: epoch, now: now)
        default:
            violated(.unexpectedFrame, "a frame that has no place on a channel's lane", now: now)
        }
    }

    /// Why an entry, or what stands for some, has no place here on its lane.
    private func objection(to frame: Frame, lane: LaneID, epoch: Epoch) -> String? {
        switch frame {
        case .deliver, .skip, .gap, .batch, .part:
            // Offsets mean nothing without the log's life that they belong to.
            if epoch == 0 { return "an entry on a lane for answers" }
            if case .part = frame { return nil }
            return arriving[lane] == nil ? nil : "an entry inside the payload of another"
        default: return nil
        }
    }

    /// Whether the server may send something more in the channel: at what is unconfirmed already it has to wait, or what waits
    /// for the app would have no bound. Asked before anything of it is taken, so that it comes again on another link.
    private mutating func keepsWindow(_ channel: ChannelID, epoch: Epoch, now: NIODeadline) -> Bool {
        guard let limits, let state = channels[channel],
            state.unconfirmed.fill(Int(clamping: limits.channelWindow), epoch: epoch)
        else { return true }
        violated(.limitExceeded, "more than the channel's window", now: now)
        return false
    }

    /// - Returns: whether the item is given to the app.
    private mutating func take(
        _ result: ChannelReceiver.Result?, channel: ChannelID, epoch: Epoch, now: NIODeadline
    ) -> Bool {
        switch result {
        case .accept:
            return true
        case .lost(let gap):
            actions.append(.gap(channel: channel, epoch: epoch, gap))
            return true
        case .duplicate(confirmed: true):
            acknowledgeAgain(channel, epoch: epoch, now: now)
            return false
        case .broken:
            // The server goes on from a cursor that is not ours: the next CONNECT says where we are.
            claim(channel)
            close(Close(code: .internalError, reason: "a hole in a channel"), now: now)
            return false
        case .duplicate(confirmed: false), nil:
            return false
        }
    }

    /// A gap is told to the app where this device lacks what is gone. One that is not told is confirmed by the session, as far as the app
    /// owes nothing before it: the server waits for that, and sends it on each link until then.
    private mutating func take(_ gap: Gap, channel: ChannelID, epoch: Epoch, now: NIODeadline) {
        let before = channels[channel]?.receiver.confirmed
        guard let told = modify(channel, { $0.receiver.receive(gap, epoch: epoch) }) ?? nil else {
            if modify(channel, { $0.receiver.confirmAbsent() }) == true {
                cursorMoved(channel, now: now)
            } else if channels[channel]?.receiver.confirmedOffset(in: epoch).map({ $0 >= gap.first }) == true {
                acknowledgeAgain(channel, epoch: epoch, now: now)
            }
            return
        }
        // What was confirmed before may lie beyond the log's new end.
        modify(channel) { state in
            state.forgetAcknowledgement()
            state.unconfirmed.took(Position(epoch: epoch, offset: told.first), cost: FrameCost.overhead)
        }
        actions.append(.gap(channel: channel, epoch: epoch, told))
        // The cursor went back to the log's end: the server has to learn that place, which the app can't confirm any more.
        if channels[channel]?.receiver.confirmed != before { cursorMoved(channel, now: now) }
        publish(channel, now: now)
    }

    /// The server's cursor is behind: what was confirmed did not reach it.
    private mutating func acknowledgeAgain(_ channel: ChannelID, epoch: Epoch, now: NIODeadline) {
        guard let offset = channels[channel]?.receiver.confirmedOffset(in: epoch) else { return }
        let position = Position(epoch: epoch, offset: offset)
        modify(channel) { $0.acknowledgement.repeatNow(position, now: now) }
        acknowledge(channel, now: now)
    }

    private mutating func processRefused(_ refused: Refused, channel: ChannelID, now: NIODeadline) {
        endParts(of: refused.id, in: channel, now: now)
        let delay = configuration.retryDelay
        switch modify(channel, { $0.queue.refused(refused, retryDelay: delay, now: now) }) {
        case .givenUp: actions.append(.refused(channel: channel, refused))
        case .spent: isProducerSpent = true
        // What comes out of order says nothing of the service.
        case .retry where refused.code != .outOfOrder:
            publishesPutOff += 1
            lastPutOff = refused.code
        case .retry, .unknown, nil: break
        }
        answered(channel, now: now)
    }

    /// The service names a channel, which has a place from now on. It can't make a device remember any number of them.
    /// - Returns: false where they are too many.
    mutating func knows(_ channel: ChannelID, now: NIODeadline) -> Bool {
        if channels[channel] != nil { return true }
        guard channelsNamed < Self.maximumChannels else {
            violated(.limitExceeded, "too many channels", now: now)
            return false
        }
        channelsNamed += 1
        channels[channel] = ClientChannel()
        return true
    }

    private mutating func opened(_ header: LaneHeader, now: NIODeadline) {
        guard knows(header.channel, now: now) else { return }
        if header.epoch != 0 { modify(header.channel) { $0.receiver.opened(epoch: header.epoch) } }
    }

    mutating func processFinished(_ lane: LaneID, now: NIODeadline) {
        guard lane != .control, !historyFinished(lane, now: now) else { return }
        arriving[lane] = nil
        do throws(InboundLanes.Problem) {
            _ = try inbound.finished(lane)
        } catch {
            violated(error, now: now)
        }
    }

    private mutating func violated(_ problem: InboundLanes.Problem, now: NIODeadline) {
        switch problem {
        case .reused: violated(.unexpectedFrame, "a lane number used again", now: now)
        case .tooMany: violated(.limitExceeded, "too many lanes", now: now)
        case .noHeader: violated(.unexpectedFrame, "a lane without a header", now: now)
        case .secondHeader: violated(.unexpectedFrame, "a second header on a lane", now: now)
        }
    }

    mutating func sendRequest(_ frame: Frame, request: UInt64, now: NIODeadline) -> Bool {
        guard phase == .connected, roomRequests.count < Self.maximumRoomRequests,
            roomRequests.insert(request).inserted
        else { return false }
        send(frame, lane: .control, owed: true, now: now)
        return true
    }
}
