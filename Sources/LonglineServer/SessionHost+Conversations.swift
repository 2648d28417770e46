import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Conversations: their list, their settings, and receipts.
extension SessionHost {
    func markRead(_ mark: ReadMark) {
        guard let identity else { return }
        // Each place is a row that the one writer of all looks up.
        guard takes(.read) else {
            loop.statistics.readsDropped += 1
            return
        }
        core.webhooks?.read(
            UserKey(tenant: identity.tenant, user: identity.user), mark.conversation, mark.position)
        loop.put(ReadNote(tenant: identity.tenant, user: identity.user, mark: mark))
    }

    func delivered(sender: UserID, origin: Position) {
        guard let identity else { return }
        loop.put(
            DeliveryNote(tenant: identity.tenant, recipient: identity.user, sender: sender, origin: origin))
    }

    func receiptCame(_ receipt: Receipt) {
        guard phase == .granted || phase == .established else { return }
        session.receiptCame(receipt, now: now)
        wake()
    }

    // MARK: The list

    func listConversations(_ request: ConversationsRequest) {
        guard let identity else { return }
        let after = ConversationPlace(listPlace: request.after)
        guard after != nil || request.after.readableBytes == 0, takes(.conversation) else {
            let code: RefusalCode = after == nil && request.after.readableBytes > 0 ? .invalidRange : .overloaded
            return refuse(request, code)
        }
        let (core, limit) = (core, Int(clamping: request.limit))
        offLoop {
            await Result { () async throws(StoreError) in
                try await core.store.conversations(
                    of: identity.user, in: identity.tenant, after: after, limit: limit, now: core.time())
            }
        } then: { host, result in
            guard host.phase != .ended else { return }
            switch result {
            case .success(let list):
                let next = list.next?.listPlace ?? ByteBuffer()
                host.session.conversationsListed(
                    ConversationsPage(request: request.request, next: next, items: list.items), now: host.now)
            case .failure(let error):
                core.note(error, in: "conversations")
                host.refuse(request, .overloaded)
            }
        }
    }

    private func refuse(_ request: ConversationsRequest, _ code: RefusalCode) {
        loop.statistics.countRefusal(code)
        session.conversationsListed(
            ConversationsPage(request: request.request, refusal: code, retryAfter: retryAfter(code)), now: now)
    }

    // MARK: Settings

    func changeConversation(_ change: ConversationChange) {
        guard let device else { return }
        guard takes(.conversation) else { return refuse(change, .overloaded) }
        let core = core
        inOrder {
            await Result { () async throws(StoreError) in
                try await core.store.set(
                    change.setting, of: change.conversation, for: device.user, in: device.tenant)
            }
        } then: { host, result in
            switch result {
            case .success(nil): host.refuse(change, .unknownChannel)
            case .success(let settings?): host.conversationChanged(change, settings, device)
            case .failure(let error):
                core.note(error, in: "conversation settings")
                host.refuse(change, error.refusal)
            }
        }
    }

    private func conversationChanged(
        _ change: ConversationChange, _ settings: ConversationSettings, _ device: DeviceKey
    ) {
        // The user's other devices learn it even if this link is gone.
        let news = ConversationState(
            request: 0, refusal: nil, conversation: change.conversation, settings: settings)
        let (user, asked) = (device.userKey, id)
        for sibling in loop.siblings { sibling.execute { $0.tell(news, to: user, except: asked) } }
        loop.tell(news, to: user, except: asked)
        if case .block = change.setting, case .user(let other) = change.conversation {
            loop.touchChanged(between: user, and: UserKey(tenant: device.tenant, user: other))
        }
        guard phase != .ended else { return }
        var answer = news
        answer.request = change.request
        session.conversationChanged(answer, now: now)
    }

    /// Another device changed a setting. Changes come from several loops, in any order: what counts is what the store has now.
    func conversationChanged(_ news: ConversationState) {
        guard phase == .granted || phase == .established, let device else { return }
        let core = core
        inOrder {
            await Result { () async throws(StoreError) in
                try await core.store.settings(of: news.conversation, for: device.user, in: device.tenant)
            }
        } then: { host, result in
            var news = news
            switch result {
            case .success(let settings): news.settings = settings
            case .failure(let error): core.note(error, in: "conversation settings")
            }
            guard host.phase != .ended else { return }
            host.session.conversationChanged(news, now: host.now)
        }
    }

    private func refuse(_ change: ConversationChange, _ code: RefusalCode) {
        guard phase != .ended else { return }
        loop.statistics.countRefusal(code)
        session.conversationChanged(
            ConversationState(
                request: change.request, refusal: code, conversation: change.conversation,
                settings: ConversationSettings()), now: now)
    }

    private func retryAfter(_ code: RefusalCode) -> UInt64 {
        code.isTemporary ? core.limits.retryAfter.wholeMilliseconds : 0
    }
}

extension ServerLoop {
    /// Tells a user's sessions of a setting, but the one that changed it.
    func tell(_ news: ConversationState, to user: UserKey, except asked: UInt64) {
        for host in sessions(of: .user(user)) where host.id != asked { host.conversationChanged(news) }
        drainDirty()
    }
}

extension ConversationPlace {
    /// A place as clients carry it: the time in 8 bytes, then the name.
    var listPlace: ByteBuffer {
        var buffer = ByteBuffer(integer: time)
        buffer.writeString(conversation.description)
        return buffer
    }

    /// - Returns: nil for what no list gave out.
    init?(listPlace: ByteBuffer) {
        var buffer = listPlace
        guard let time: UInt64 = buffer.readInteger(), time <= FrameLimits.maximumNumber,
            let name = buffer.readString(length: buffer.readableBytes), let conversation = try? ChannelID(name)
        else { return nil }
        self.init(time: time, conversation: conversation)
    }
}
