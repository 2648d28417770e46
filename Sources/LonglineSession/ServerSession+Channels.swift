public import LonglineWire
public import NIOCore

/// Delivery: which channel reads next, and on which lane it sends.
extension ServerSession {
    private static let readRetryDelay = TimeAmount.seconds(1)

    /// The channel's log grew. It only wakes the channel's sender, which reads the log.
    public mutating func logAdvanced(_ channel: ChannelID, head: Position, now: NIODeadline) {
        guard case .up = phase else { return }
        modify(channel) { $0.sender?.advanced(to: head) }
        wake(channel, now: now)
    }

    /// Answers ``ServerAction/read(channel:after:upTo:maximumBytes:)``.
    public mutating func pageRead(_ channel: ChannelID, page: SessionPage, now: NIODeadline) {
        guard case .up = phase, !oldReadEnded(channel, now: now), isReading(channel) else { return }
        readEnded(channel)
        guard modify(channel, { $0.mayReceive }) == true else {
            // The credential stopped to allow it while the log was read: nothing of the page is sent.
            modify(channel) { $0.sender?.readFailed() }
            return startReads(now: now)
        }
        let window = allowance(of: channel)
        guard let user = identity?.user else { return }
        promisedParts.remove(channel)
        // Behind its own payload nothing is overtaken: it keeps its place.
        let isPlaceFree =
            sendingParts.contains(channel)
            || sendingParts.count + promisedParts.count < FrameLimits.maximumPayloadsInParts
        let mayBegin = isPlaceFree && mayBeginParts(of: urgency(of: channel))
        let result = modify(channel) {
            $0.sender?.take(page, window: window, user: user, mayBeginParts: mayBegin)
        }
        switch result ?? nil {
        case .send(var frames):
            if let encodings, !encodings.plain.contains(channel) {
                let (least, single) = (configuration.leastBatch, frames)
                frames = modify(channel) { $0.batching.compress(single, least: least) } ?? single
                batchedEntries += single.entries - frames.entries
            }
            for frame in frames { send(frame, channel: channel, now: now) }
            advance(channel, now: now)
            startReads(now: now)
            shareLanes(of: channel, now: now)
        case .otherEpoch:
            // The next CONNECT finds the new log and tells each channel's gap.
            end(Close(code: .normal, reason: "a channel's log was replaced"), tellPeer: true)
        case .broken:
            end(Close(code: .internalError, reason: "a hole in a channel's log"), tellPeer: true)
        case nil:
            break
        }
    }

    /// Answers ``ServerAction/read(channel:after:upTo:maximumBytes:)``: not now. It is tried again in a second.
    public mutating func readFailed(_ channel: ChannelID, now: NIODeadline) {
        guard case .up = phase, !oldReadEnded(channel, now: now), isReading(channel) else { return }
        readEnded(channel)
        modify(channel) { $0.sender?.readFailed() }
        let wasPromised = promisedParts.remove(channel) != nil
        failedReads.append(channel)
        retryReadsAt = retryReadsAt ?? now + Self.readRetryDelay
        startReads(now: now)
        if wasPromised { beginWaitingParts(now: now) }
        shareLanes(of: channel, now: now)
    }

    /// Answers ``ServerAction/read(channel:after:upTo:maximumBytes:)``: there is no such log any more. What the device has not got of it
    /// is gone, and it is told so. That is the end of it: whoever is in a room made anew hears so by its own epoch.
    public mutating func logGone(_ channel: ChannelID, now: NIODeadline) {
        guard let page = modify(channel, { $0.sender?.nothingLeft }) ?? nil else { return }
        pageRead(channel, page: page, now: now)
    }

    /// In place, as all that asks about a channel for each message: a copy would retain everything that waits in it.
    private mutating func isReading(_ channel: ChannelID) -> Bool {
        modify(channel) { $0.sender?.isReading == true } == true
    }

    /// Whether an answer was that of a log that is no more.
    private mutating func oldReadEnded(_ channel: ChannelID, now: NIODeadline) -> Bool {
        guard modify(channel, { $0.awaitsOldRead }) == true else { return false }
        modify(channel) { $0.awaitsOldRead = false }
        readEnded(channel)
        advance(channel, now: now)
        return true
    }

    /// The user's right to a channel changed: a join, a leave, or a channel that is new.
    public mutating func channelChanged(_ channel: SessionChannel, now: NIODeadline) {
        guard case .up = phase else { return }
        let channel = takenUp(channel)
        let mayReceive = identity?.may(.receive, channel.channel) == true
        if channels[channel.channel] == nil { channels[channel.channel] = newChannel(channel.channel) }
        strangers.remove(channel.channel)
        let isNewLog = modify(channel.channel) { state in
            // A payload's read has a name, which the new log's reads don't share.
            let wasReading = state.sender?.isReadingPage ?? false
            state.isMember = channel.upTo == nil
            state.readable = ReadableRange(channel)
            state.mayReceive = mayReceive
            if state.sender == nil {
                state.sender = ChannelSender(channel)
                return false
            }
            let isNewLog = state.sender?.change(channel) ?? false
            if isNewLog, wasReading { state.awaitsOldRead = true }
            return isNewLog
        }
        if isNewLog == true {
            promisedParts.remove(channel.channel)
            if channels[channel.channel]?.awaitsOldRead != true { readEnded(channel.channel) }
        }
        advance(channel.channel, now: now)
        if channel.upTo != nil { forgetEnded(now: now) }
        shareLanes(of: channel.channel, now: now)
    }

    /// A fresh credential may allow other channels than the one before it. Who keeps its channels notices nothing.
    mutating func rightsChanged(now: NIODeadline) {
        guard let identity else { return }
        var begins: [ChannelID] = []
        for channel in channels.keys.sorted(by: { $0.description < $1.description }) {
            let mayReceive = identity.may(.receive, channel)
            guard let state = channels[channel], state.sender != nil, state.mayReceive != mayReceive else { continue }
            modify(channel) { state in
                state.mayReceive = mayReceive
                if !mayReceive { state.sender?.abandonPayload() }
            }
            if mayReceive {
                begins.append(channel)
            } else {
                promisedParts.remove(channel)
                noteParts(channel, now: now)
                actions.append(.send(.stopped(ChannelStopped(channel: channel)), lane: .control))
                shareLanes(of: channel, now: now)
            }
        }
        for channel in begins { advance(channel, now: now) }
    }

    private mutating func isCurrent(_ header: LaneHeader) -> Bool {
        modify(header.channel) { $0.sender?.epoch == header.epoch } == true
    }

    mutating func processAcknowledge(_ acknowledge: Acknowledge, header: LaneHeader, now: NIODeadline) {
        // Another life of the log, or a channel that isn't the user's any more: means nothing here.
        guard isCurrent(header) else { return }
        switch modify(header.channel, { $0.sender?.acknowledge(acknowledge.offset) }) ?? nil {
        case .moved(let position):
            actions.append(.storeCursor(channel: header.channel, position: position))
            let reached = modify(header.channel) { $0.sender?.takeReached() ?? [] } ?? []
            for (sender, origin) in reached {
                actions.append(.delivered(sender: sender, origin: origin))
            }
            modify(header.channel) { $0.lane?.lastUse = now }
            advance(header.channel, now: now)
            if channels[header.channel]?.isMember == false { forgetEnded(now: now) }
            shareLanes(of: header.channel, now: now)
        case .old, .beyond, nil:
            // A device may be ahead of a log that lost its end: it is not at fault, and the next CONNECT tells it the gap.
            break
        }
    }

    /// Sends what is owed and puts the channel in the queue for a read, if it may read now.
    mutating func advance(_ channel: ChannelID, now: NIODeadline) {
        noteParts(channel, now: now)
        guard mayDeliver(channel), mayFill(channel) else {
            noteLag(channel, now: now)
            return startReads(now: now)
        }
        let window = allowance(of: channel)
        while case .up = phase, let notice = modify(channel, { $0.takeNotice(window: window) }) ?? nil {
            send(notice, channel: channel, now: now)
        }
        let queue = modify(channel) { state in
            guard !state.isQueued, state.wantsRead(window: window) else { return false }
            state.isQueued = true
            return true
        }
        if queue == true {
            reads.append(channel, channels[channel]?.sender?.payload == nil ? urgency(of: channel) : .bulk)
        }
        noteLag(channel, now: now)
        startReads(now: now)
    }

    /// Starts reads in the order of ``ReadTurns``, a few at a time.
    mutating func startReads(now: NIODeadline) {
        var isPlaceFree = false
        while case .up = phase, let channel = reads.next() {
            // Others may have opened lanes since it asked, or filled what may be unconfirmed.
            guard mayDeliver(channel), hasRoom(channel) || mayFill(channel) else {
                modify(channel) { $0.isQueued = false }
                if promisedParts.remove(channel) != nil { isPlaceFree = true }
                readEnded(channel)
                noteLag(channel, now: now)
                continue
            }
            let bytes = configuration.readBytes
            let window = allowance(of: channel)
            if let payload = modify(channel, { $0.startPayloadRead(window: window) }) ?? nil {
                actions.append(
                    .readPayload(
                        PayloadRead(
                            channel: channel, epoch: channels[channel]?.epoch ?? 0, offset: payload.offset,
                            from: payload.next, maximumBytes: bytes)))
                continue
            }
            let read = modify(channel) { state in
                state.isQueued = false
                return state.wantsRead(window: window) ? state.sender?.startRead(window: window, readBytes: bytes) : nil
            }
            if let read = read ?? nil {
                actions.append(
                    .read(channel: channel, after: read.after, upTo: read.upTo, maximumBytes: read.bytes))
            } else {
                readEnded(channel)
                // It reads when it may again, and has its turn then.
                if promisedParts.remove(channel) != nil { isPlaceFree = true }
            }
        }
        if isPlaceFree { beginWaitingParts(now: now) }
        shareRoom(now: now)
    }
}

extension [Frame] {
    /// How many of them are entries by themselves.
    fileprivate var entries: Int { count { if case .deliver = $0 { true } else { false } } }
}
