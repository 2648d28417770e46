public import LonglineWire
public import NIOCore

/// What a client says once the session is up.
extension ServerSession {
    /// Requests of the control lane kept for the end of the handshake.
    private static let maximumDeferredRequests = 64

    mutating func process(_ frame: Frame, lane: LaneID, now: NIODeadline) {
        if lane == .control { return processControl(frame, now: now) }
        do throws(InboundLanes.Problem) {
            switch frame {
            case .lane(let header):
                try inbound.opened(lane, header)
                opened(header, now: now)
            case .publish(let publish):
                processPublish(publish, lane: lane, channel: try inbound.header(lane).channel, now: now)
            case .part(let part):
                _ = try inbound.header(lane)
                processPart(part, lane: lane, now: now)
            case .acknowledge(let acknowledge):
                processAcknowledge(acknowledge, header: try inbound.header(lane), now: now)
            default:
                violated(.unexpectedFrame, "a frame that has no place on a channel's lane", now: now)
            }
        } catch {
            violated(error, now: now)
        }
    }

    mutating func processControl(_ frame: Frame, now: NIODeadline) {
        switch frame {
        case .close:
            end(Close(code: .normal), tellPeer: false)
        case .ping(let ping):
            processPing(ping, now: now)
        case .mode(let mode):
            processMode(mode, now: now)
        case .signal(let signal):
            processSignal(signal, now: now)
        case .urgency(let urgency):
            processUrgency(urgency, now: now)
        case .encodings(let encodings):
            let mayBatch = configuration.compresses && encodings.encodings.contains(.deflate)
            self.encodings = mayBatch ? encodings : nil
        case _ where frame.isRequest:
            guard handshakeComplete else {
                guard deferredRequests.count < Self.maximumDeferredRequests else {
                    return violated(.limitExceeded, "too many requests in early data", now: now)
                }
                deferredRequests.append(frame)
                return
            }
            processRequest(frame, now: now)
        default:
            refuseOnControl(now: now)
        }
    }

    /// Ends the session over a frame of lane 0 that a client never says there.
    mutating func refuseOnControl(now: NIODeadline) {
        violated(.unexpectedFrame, "a frame that has no place on the control lane", now: now)
    }

    private mutating func processRequest(_ frame: Frame, now: NIODeadline) {
        switch frame {
        case .refresh(let refresh):
            guard !isRefreshing else { return violated(.limitExceeded, "a refresh is under way", now: now) }
            isRefreshing = true
            actions.append(.refresh(token: refresh.token))
        case .logout:
            // Said once or twice, it is one logout.
            guard !isLoggingOut else { return }
            isLoggingOut = true
            actions.append(.logout)
        case .eraseAccount:
            processErasure(now: now)
        case .join(let request):
            if admits(request.request, .join, request.room, now: now) { actions.append(.join(request)) }
        case .leave(let request):
            // Who may not even join shall not be kept in a room that others put the user into.
            if admits(request.request, nil, request.room, now: now) { actions.append(.leave(request)) }
        case .room(let command):
            if admits(command.request, .manage, command.room, now: now) { actions.append(.manage(command)) }
        case .members(let request):
            processMembers(request, now: now)
        case .history(let request):
            processHistory(request, now: now)
        case .conversations(let request):
            processConversations(request, now: now)
        case .conversationSet(let change):
            processChange(change, now: now)
        case .read(let mark):
            processRead(mark)
        case .subscribe(let request):
            processSubscribe(request, now: now)
        case .unsubscribe(let end):
            processUnsubscribe(end, now: now)
        case .visibility(let visibility):
            actions.append(.setVisibility(visibility))
        default:
            assertionFailure("only requests are deferred")
        }
    }

    /// - Parameter action: what the credential has to allow; nil: nothing.
    private mutating func admits(
        _ request: UInt64, _ action: ChannelAction?, _ room: RoomID, now: NIODeadline
    ) -> Bool {
        guard !roomRequests.contains(request) else {
            violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
            return false
        }
        let refusal: RefusalCode
        if let action, identity?.may(action, .room(room)) != true {
            refusal = .forbidden
        } else if roomRequests.count >= configuration.maximumRoomRequests {
            refusal = .overloaded
        } else {
            roomRequests.insert(request)
            return true
        }
        let answer = RoomAnswer(request: request, refusal: refusal, position: Position(epoch: 0, offset: 0))
        actions.append(.send(.roomAnswer(answer), lane: .control))
        return false
    }

    mutating func processFinished(_ lane: LaneID, now: NIODeadline) {
        // The end of lane 0 says nothing: the session ends by CLOSE or with its link.
        guard lane != .control else { return }
        do throws(InboundLanes.Problem) {
            guard let header = try inbound.finished(lane) else { return }
            endParts(lane: lane, now: now)
            modify(header.channel) { $0.inboundLanes -= 1 }
            forgetIfUnused(header.channel)
            if channels[header.channel]?.isMember == false { forgetEnded(now: now) }
        } catch {
            violated(error, now: now)
        }
    }

    private mutating func opened(_ header: LaneHeader, now: NIODeadline) {
        if channels[header.channel] == nil {
            // Not the user's channel: bounded like the lanes.
            guard strangers.count < configuration.maximumLanes else {
                return violated(.limitExceeded, "lanes for too many unknown channels", now: now)
            }
            strangers.insert(header.channel)
            channels[header.channel] = newChannel(header.channel)
        }
        modify(header.channel) { $0.inboundLanes += 1 }
    }

    private mutating func violated(_ problem: InboundLanes.Problem, now: NIODeadline) {
        switch problem {
        case .reused: violated(.unexpectedFrame, "a lane number used again", now: now)
        case .tooMany: violated(.limitExceeded, "too many lanes", now: now)
        case .noHeader: violated(.unexpectedFrame, "a lane without a header", now: now)
        case .secondHeader: violated(.unexpectedFrame, "a second header on a lane", now: now)
        }
    }

    // MARK: Publishing

    private mutating func processPublish(_ publish: Publish, lane: LaneID, channel: ChannelID, now: NIODeadline) {
        guard let producer else { return }
        guard arriving[lane] == nil else {
            return violated(.unexpectedFrame, "a publish inside the payload of another", now: now)
        }
        let cost = FrameCost.of(publish)
        let limit = max(Int(clamping: limits.maximumUnacknowledged), EarlyAllowance.publishes)
        let bytes = max(window, EarlyAllowance.bytes)
        // In place: a copy of the channel that is still held would make the next change copy all that waits in its gate.
        let hasRoom = modify(channel) {
            $0.gate.count < limit && ($0.gate.isEmpty || cost <= bytes - $0.gate.bytes)
        }
        guard let hasRoom else { return }
        guard hasRoom else {
            return violated(.limitExceeded, "more unacknowledged publishes than the channel's window", now: now)
        }
        let refusal = self.refusal(of: publish, channel: channel)
        guard publish.following == 0 else {
            return beginParts(publish, lane: lane, channel: channel, refusal: refusal, now: now)
        }
        if let code = refusal {
            guard !mayBeEntered(publish, channel) else {
                modify(channel) { $0.gate.admit(publish) }
                return actions.append(.refuse(channel: channel, producer: producer, publish: publish, code: code))
            }
            modify(channel) { $0.gate.admit(publish, answer: .refused(Refused(id: publish.id, code: code))) }
            sendAnswers(channel, now: now)
        } else {
            modify(channel) { $0.gate.admit(publish) }
            actions.append(.append(channel: channel, producer: producer, publish: publish))
        }
    }

    /// Whether a copy of a publish that is refused may have been entered before: rights and limits change.
    func mayBeEntered(_ publish: Publish, _ channel: ChannelID) -> Bool {
        guard publish.id > 0, publish.after < publish.id else { return false }
        if case .user(let owner) = channel { return owner == identity?.user }
        return publish.recipient == nil
    }

    /// What may not be entered, whatever the store says. Membership is the store's to judge.
    private func refusal(of publish: Publish, channel: ChannelID) -> RefusalCode? {
        guard let identity else { return .forbidden }
        // A direct message is about the recipient's inbox, though the sender's holds its record.
        var target = channel
        if let recipient = publish.recipient, channel == .user(identity.user) { target = .user(recipient) }
        guard identity.may(.publish, target) else { return .forbidden }
        if case .user(let owner) = channel, owner != identity.user { return .unknownChannel }
        guard publish.id > 0, publish.after < publish.id else { return .invalidID }
        guard publish.payload.readableBytes <= FrameLimits.maximumPayload,
            publish.length <= UInt64(publish.kind.maximumPayload), publish.length <= limits.maximumPayload
        else { return .payloadTooLarge }
        if publish.recipient != nil, channel != .user(identity.user) { return .unknownRecipient }
        return nil
    }

    /// Answers ``ServerAction/append(channel:producer:publish:)``. Results may come in any order; they leave in the order
    /// of the publishes.
    public mutating func appended(channel: ChannelID, id: PublishID, outcome: PublishOutcome, now: NIODeadline) {
        guard case .up = phase else { return }
        let answer: PublishGate.Answer =
            switch outcome {
            case .published(let published): .published(published)
            case .refused(let refused): .refused(refused)
            }
        guard modify(channel, { $0.gate.answer(id, answer) }) == true else { return }
        sendAnswers(channel, now: now)
    }

    mutating func sendAnswers(_ channel: ChannelID, now: NIODeadline) {
        while let answer = modify(channel, { $0.gate.nextAnswer() }) ?? nil {
            send(answer, channel: channel, now: now)
        }
        finishAnswers(channel)
        shareLanes(of: channel, now: now)
    }

    // MARK: Rooms

    /// Answers ``ServerAction/join(_:)``, ``ServerAction/leave(_:)`` or ``ServerAction/manage(_:)``.
    /// - Parameters:
    ///   - answer: what the client is told.
    ///   - settings: the room's, for a join that was done: a client that may receive the room is told them right before.
    ///   - channel: the room as the session may read it from now on (after a leave with
    ///     ``SessionChannel/upTo``); nil when nothing changed for this user.
    ///   - now: the time of this call.
    public mutating func roomAnswered(
        _ answer: RoomAnswer, settings: RoomSettings? = nil, channel: SessionChannel?, now: NIODeadline
    ) {
        guard case .up = phase, roomRequests.remove(answer.request) != nil else { return }
        if let settings, identity?.may(.receive, .room(settings.room)) == true {
            actions.append(.send(.roomSettings(settings), lane: .control))
        }
        actions.append(.send(.roomAnswer(answer), lane: .control))
        if let channel { channelChanged(channel, now: now) }
    }
}

extension Frame {
    /// Whether a client may say it on lane 0 behind `CONNECT`.
    var belongsOnServersControl: Bool {
        switch self {
        case .close, .ping, .mode, .signal, .urgency, .encodings: true
        default: isRequest
        }
    }

    /// Whether it waits for the handshake, whatever it asks.
    fileprivate var isRequest: Bool {
        switch self {
        case .refresh, .join, .leave, .room, .members, .history, .logout, .eraseAccount, .conversations,
            .conversationSet, .read, .subscribe, .unsubscribe, .visibility:
            true
        default: false
        }
    }
}
