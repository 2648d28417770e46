import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// What a device does with the frames that come and with what its session asks for.
extension ModelDevice {
    func take(_ frame: Frame, lane: LaneID) {
        var frame = frame
        if let problem = watch.received(frame) { simulation.violation("\(device): \(problem)") }
        if case .connected(let connected) = frame { noteRecord(connected) }
        switch frame {
        case .lane(let header): serverLanes[lane] = header
        case .refused(let refused) where refused.code == .idReused && has(.takeReusedForDone):
            let place = Position(epoch: serverLanes[lane]?.epoch ?? 0, offset: 0)
            frame = .published(Published(id: refused.id, position: place, time: 0))
        case .refused(let refused) where refused.code.isTemporary: putOff.insert(refused.id)
        case .connected(var connected) where has(.overrunWindow):
            connected.limits.channelWindow *= 100
            connected.limits.maximumUnacknowledged = 1_000
            frame = .connected(connected)
        case .connected(var connected) where has(.ignoreOlderRecord):
            connected.cursorVersion = max(connected.cursorVersion, session.cursorVersion)
            frame = .connected(connected)
        case .deliver(let deliver):
            if has(.ignoreChain), deliver.entry.following == 0, let header = serverLanes[lane] {
                return give(deliver, epoch: header.epoch, channel: header.channel)
            }
        default: break
        }
        input { $0.received(frame, lane: lane, now: $1) }
    }

    func input(_ body: (inout ClientSession, NIODeadline) -> Void) {
        body(&session, now)
        while let action = session.nextAction() { perform(action) }
        arm()
    }

    func arm() {
        guard !isAsleep, let deadline = session.nextDeadline, deadline < armed ?? .distantFuture else { return }
        armed = deadline
        let life = life
        scheduler.at(has(.clockStopsInSleep) ? deadline + slept : deadline) { [weak self] in
            guard let self, self.life == life, armed == deadline else { return }
            armed = nil
            // What is due in sleep is seen to afterwards.
            guard !isAsleep else { return }
            input { session, now in session.deadlineReached(now: now, random: &self.random) }
        }
    }

    private func perform(_ action: ClientAction) {
        let truth = simulation.store.durable
        switch action {
        case .openLane, .prioritize: break
        case .awaitRoom(let lane):
            let life = life
            scheduler.after(.milliseconds(Int64.random(in: 0...5, using: &random))) { [weak self, weak link] in
                guard let self, self.life == life, let link, self.link === link else { return }
                whenAwake { device in
                    guard device.link === link else { return }
                    device.input { $0.laneWritable(lane, true, now: $1) }
                }
            }
        case .send(let frame, let lane): send(frame, lane: lane)
        case .finishLane(let lane):
            if let problem = watch.finished(lane) { simulation.violation("\(device): \(problem)") }
            link?.finish(lane, from: .client)
        case .connected(let connected):
            guard write({ $0.cursorVersion = connected.cursorVersion }) else { return }
            staleStep = 1
        case .storeTicket: _ = write { $0.hasTicket = true }
        case .published(let channel, let published): takePublished(published, channel)
        case .refused(let channel, let refused): takeRefused(refused, channel)
        case .renewProducer:
            simulation.counts.renewals += 1
            let before = durable.producer
            renumber()
            simulation.checker.renumbered(waitingNumbers, from: before, to: durable.producer)
        case .deliver(let channel, let epoch, let deliver): give(deliver, epoch: epoch, channel: channel)
        case .skipped(let channel, let epoch, let skip):
            skipEnds[channel, default: []].insert(Position(epoch: epoch, offset: skip.to))
            simulation.checker.skipped(
                skip, epoch: epoch, in: channel, to: app, truth: truth, wall: simulation.wall)
        case .gap(let channel, let epoch, let gap):
            simulation.counts.gaps += 1
            simulation.checker.lost(gap, epoch: epoch, in: channel, to: app, truth: truth)
            let first = Position(epoch: epoch, offset: gap.first)
            handedGaps[channel, default: []].append((number: handedPlaces, upTo: first))
            confirmLater(channel, first)
        case .roomAnswered(let answer, let settings):
            guard answer.refusal == nil, let room = rooms.removeValue(forKey: answer.request) else { return }
            simulation.checker.changedRoom(at: answer.position, in: room, by: app, truth: truth)
            if let settings {
                simulation.checker.toldSettings(settings, behind: answer.position, in: room, app, truth: truth)
            }
        case .history(let result):
            guard let asked = pages.removeValue(forKey: result.answer.request) else { return }
            simulation.counts.historyPages += result.answer.refusal == nil ? 1 : 0
            simulation.checker.page(result, of: asked, to: app, truth: truth, wall: simulation.wall)
        case .members, .refreshed, .stopped, .behind, .observedAddress, .heartbeatLearned, .signal,
            .sendSignal, .presence,
            .presenceAnswered, .erasureRefused:
            break
        case .conversations, .conversationState, .receipt: break
        case .probePath:
            let works = random.happens(0.3)
            if works { input { $0.pathChanged(now: $1) } }
        case .end(let end): ended(end)
        }
    }

    private func send(_ frame: Frame, lane: LaneID) {
        simulation.note { "\(app.device) \(app.number) link \(link?.number ?? 0) lane \(lane.rawValue) > \(frame)" }
        var frame = frame
        if let problem = watch.sent(frame, lane: lane) { simulation.violation("\(device): \(problem)") }
        switch frame {
        case .connect(var connect):
            connect.cursors = named(connect.cursors)
            checkConnect(connect)
            frame = .connect(connect)
        case .cursors(var cursors):
            cursors.cursors = named(cursors.cursors)
            namedBefore.formUnion(cursors.cursors.map(\.channel))
            frame = .cursors(cursors)
        case .lane(let header): lanes[lane] = header
        case .publish(var publish):
            if has(.keepAfter), let drawn = drawnAfter[publish.tag] {
                publish.after = drawn
                frame = .publish(publish)
            }
            let isStored = durable.rows.contains { $0.publish.tag == publish.tag && $0.publish.id == publish.id }
            simulation.checker.sent(publish, isStored: isStored, by: app, at: scheduler.now)
        case .acknowledge(let acknowledge):
            if let header = lanes[lane] {
                let position = Position(epoch: header.epoch, offset: acknowledge.offset)
                if has(.keepSkipsBack), skipEnds[header.channel]?.contains(position) == true { return }
                simulation.checker.acknowledges(position, in: header.channel, by: app)
            }
        default: break
        }
        if has(.finishLanesEarly), case .publish(let publish) = frame, publish.following == 0 {
            return sendOnOwnLane(publish, lanes[lane])
        }
        link?.send(damaged(frame, lane: lane), lane: lane, from: .client)
    }

    private func give(_ deliver: Deliver, epoch: Epoch, channel: ChannelID) {
        simulation.note { "\(app.device) \(app.number) is given \(channel) \(deliver.entry.offset)" }
        simulation.checker.delivered(deliver, epoch: epoch, in: channel, to: app, truth: simulation.store.durable)
        confirmLater(channel, Position(epoch: epoch, offset: deliver.entry.offset))
    }

    private func ended(_ end: SessionEnd) {
        simulation.note { "\(app.device) \(app.number) link \(link?.number ?? 0) ends: \(end)" }
        switch end.close.code {
        case .stale:
            // Restored from a backup: the number has to get beyond what was used since.
            durable.connectNumber += staleStep
            staleStep *= 2
        case .evicted where simulation.policy(of: app.user) != .all: isOver = true
        case .replaced:
            if simulation.hasLaterLogin(than: self) { isOver = true }
        case .loggedOut where sawErasure || isLoggingOut: isOver = true
        case .credentialRevoked where isLoggingOut || generation < simulation.store.generation(of: user): isOver = true
        case .normal, .idle, .connectTimeout, .shuttingDown: break
        // An older state than the server remembers: the session resumes from its own cursor.
        case .internalError
        where wasRestored || simulation.sharesDevice(self) || simulation.counts.storeRestores > 0:
            break
        // A room that a sweep took was made again, and the session began when it was gone: the next one tells of the gap.
        case .internalError where simulation.checker.hasSweptPlace(app, truth: simulation.store.truth): break
        case .overloaded where simulation.counts.fullDisks > 0: break
        default: simulation.violation("\(device)'s session ended: \(end)")
        }
        guard let link else { return }
        link.close(from: .client)
        leaveLink()
        if isOver { wipe() }
    }

    private func takePublished(_ published: Published, _ channel: ChannelID) {
        guard let row = durable.rows.first(where: { $0.publish.id == published.id }),
            let number = MessageChecker.number(of: row.publish.payload)
        else { return }
        simulation.checker.acknowledged(
            number, at: published.position, in: channel, truth: simulation.store.durable)
        _ = write { $0.rows.removeAll { $0.publish.id == published.id } }
    }

    private func takeRefused(_ refused: Refused, _ channel: ChannelID) {
        guard let row = durable.rows.first(where: { $0.publish.id == refused.id }),
            let number = MessageChecker.number(of: row.publish.payload)
        else { return input { $0.rowRemoved(refused.id, from: channel, now: $1) } }
        let namesEntry = row.publish.kind.target != nil
        let isExpected =
            [.payloadTooLarge, .unknownChannel, .forbidden, .blocked].contains(refused.code)
            || namesEntry && [.unknownTarget, .invalidTarget].contains(refused.code)
        let mayBeForgotten = wasRestored || putOff.contains(refused.id)
        if !isExpected, !(refused.code == .outcomeUnknown && mayBeForgotten) {
            simulation.violation("\(device)'s publish \(refused.id) was refused for no reason: \(refused)")
        }
        if has(.goOnBeforeRemoved) { input { $0.rowRemoved(refused.id, from: channel, now: $1) } }
        // The app is told once the row is gone: a row that is still there would be sent again.
        let isAlive = write(dies: 0.02) { durable in
            durable.rows.removeAll { $0.publish.id == refused.id }
            if durable.lastID[channel] == refused.id { durable.lastID[channel] = row.publish.after }
        }
        if isAlive {
            let truth = simulation.store.durable
            simulation.checker.refused(number, refused.code, in: truth.era(of: user, device, in: channel))
            input { $0.rowRemoved(refused.id, from: channel, now: $1) }
        } else if !durable.rows.contains(where: { $0.publish.tag == row.publish.tag }) {
            simulation.checker.forgot(number)
        }
    }

    /// Whether a gap came since that says so. Where a log lost its end another message may stand at that place by now.
    private func isLost(_ position: Position, handedAs number: Int, in channel: ChannelID) -> Bool {
        handedGaps[channel]?.contains {
            $0.number >= number && (position.epoch != $0.upTo.epoch || position.offset > $0.upTo.offset)
        } ?? false
    }

    /// The app is done some time later, in order; what it is done with is on its disk before the session hears of it.
    private func confirmLater(_ channel: ChannelID, _ position: Position) {
        if has(.confirmEarly) { durable.cursors[channel] = position }
        if has(.acknowledgeOnArrival) {
            return scheduler.at(scheduler.now) { [weak self] in
                self?.input { $0.confirm(channel: channel, position: position, now: $1) }
            }
        }
        handedPlaces += 1
        let (life, number) = (life, handedPlaces)
        let delay = Int64.random(in: scheduler.now < slowUntil ? 50...400 : 0...60, using: &random)
        let soon = scheduler.now + .milliseconds(delay)
        let time = max(soon, confirmTimes[channel] ?? soon)
        confirmTimes[channel] = time
        scheduler.at(time) { [weak self] in
            guard let self, self.life == life else { return }
            whenAwake { device in
                guard !device.isLost(position, handedAs: number, in: channel) else { return }
                device.simulation.checker.processed(position, in: channel, by: device.app)
                guard device.write({ $0.cursors[channel] = position }) else { return }
                device.input { $0.confirm(channel: channel, position: position, now: $1) }
            }
        }
    }
}
