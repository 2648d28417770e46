import LonglineWire
import NIOCore

/// A driver whose outbox other processes of the app share.
extension ConnectionDriver {
    /// Whether it takes messages of other processes in at all. What is another user's would go into the wrong inbox: it waits for an owner
    /// that is its user's.
    var takesSubmissions: Bool { ending == nil && otherUser(token: nil) == nil }

    /// Takes messages of other processes into the outbox, as far as there is room: in the order in which they were put in, each
    /// in the transaction that takes it from where it waited. `done` is called when that is durable, with whether all had room.
    func adopt(_ submissions: [Submission], done: @escaping (Bool) -> Void) {
        guard takesSubmissions else { return done(false) }
        var hadRoom = true
        for submission in submissions where !knows(submission.send) {
            // The inbox has no name yet: the first connection tells.
            guard let place = place(of: submission.destination) else {
                hadRoom = false
                break
            }
            do throws(ClientError) {
                let (row, isTooLarge) = try take(submission, at: place)
                adopting.insert(row.send)
                trackers[row.id] = core?.sharing?.handOver(row.send)
                pending.adopted.append(row.send)
                // An earlier version of the app may have put it in.
                if isTooLarge { giveUpTooLarge(row) } else if !row.isRepresentable { giveUpUnrepresentable(row) }
            } catch {
                // It waits where it is; what is behind it too, so that the order stays.
                hadRoom = false
                break
            }
        }
        // Also without room for all: what is claimed next is without what was taken now.
        afterDurable { [unowned self] error in done(hadRoom && error == nil && !isRetired) }
    }

    /// Puts a message of another process into the outbox. One that is too large for it always will be, and what is
    /// behind it would wait for ever: it goes in without its payload, to be given up.
    private func take(
        _ submission: Submission, at place: (channel: ChannelID, recipient: UserID?)
    ) throws(ClientError) -> (row: StoredPublish, isTooLarge: Bool) {
        do throws(ClientError) {
            return (try add(submission, at: place), false)
        } catch {
            guard error.code == .payloadTooLarge else { throw error }
            var withoutPayload = submission
            withoutPayload.payload = ByteBuffer()
            return (try add(withoutPayload, at: place), true)
        }
    }

    /// Whether a message is in the outbox, or was: a claim that is late may name it once more.
    private func knows(_ send: SendID) -> Bool {
        adopting.contains(send) || outbox.row(of: send) != nil || unentered[send] != nil || outcomes[send] != nil
    }

    /// What this process followed from outside is told from inside, now that the outbox is its own.
    func takeOverFollowed() {
        guard let sharing = core?.sharing else { return }
        for send in sharing.followed {
            if let row = outbox.row(of: send) {
                guard let tracker = sharing.handOver(send) else { continue }
                if leftRows.contains(row.id) { tracker.change(to: .sent) }
                trackers[row.id] = tracker
            } else if unentered[send] != nil {
                unentered[send]?.tracker = sharing.handOver(send)
            } else if let outcome = outcomes[send] {
                sharing.handOver(send)?.change(to: outcome.state)
            }
        }
    }

    /// Another process owns the outbox: says nothing more, writes nothing more, and hands over who follows a message. What the app
    /// has and wants is left to the next driver.
    func retire(_ state: ConnectionState, _ done: @escaping ([SendID: SendTracker]) -> Void) {
        guard !isRetired else { return done([:]) }
        isRetired = true
        // What is being written is written or not, before anybody is told to send it another way.
        guard isFlushing else { return finishRetiring(state, done) }
        afterFlush.append { [unowned self] _ in finishRetiring(state, done) }
    }

    static var retired: ClientError {
        ClientError(.ownershipLost, message: "another process of the app owns the outbox")
    }

    private func finishRetiring(_ state: ConnectionState, _ done: @escaping ([SendID: SendTracker]) -> Void) {
        generation += 1
        question?.cancel()
        if case .waiting(let timer) = phase { timer.cancel() }
        phase = .idle
        // Without a word: the service takes the other process's link for this device's next one.
        giveUpCurrent()
        sessionTimer?.task.cancel()
        sessionTimer = nil
        stopRefreshing()
        monitor?.stop()
        monitor = nil
        let error = Self.retired
        failRoomRequests(error)
        failHistory(error)
        failMembers(error)
        failConversationRequests(error)
        failRequests(error)
        answerErasure(Self.erasureUnknown(error.message))
        failPresence(error)
        resolveUserWaiters(error)
        for (id, send) in sends {
            trackers[id] = nil
            send.done(.failure(error))
        }
        sends = [:]
        var left: [SendID: SendTracker] = [:]
        for (id, tracker) in trackers { if let row = outbox.rows[id] { left[row.send] = tracker } }
        trackers = [:]
        // What was refused or taken back, and is on disk still, is published by the next owner.
        for (send, message) in unentered { left[send] = message.tracker }
        unentered = [:]
        core?.driverEnded(memory)
        // What the service said lasts until the app acts.
        if outlets.states.latest?.stopError == nil { publish(state) }
        resolveConnectWaiters(error)
        done(left)
    }
}
