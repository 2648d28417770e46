public import LonglineWire
public import NIOCore

/// Requests about conversations that wait for their answers, on either side.
struct ConversationRequests {
    var lists: Set<UInt64> = []
    var changes: Set<UInt64> = []

    mutating func removeAll() { self = ConversationRequests() }
}

/// Conversations: their list, their settings, and receipts both ways. All of it on the control lane, none of it in the way of
/// a channel.
extension ServerSession {
    // MARK: What the client says

    /// The user read on. It is stored and told to others by the host; a place that means nothing is ignored there.
    mutating func processRead(_ mark: ReadMark) {
        guard let identity, mayReceive(mark.conversation, identity) else { return }
        actions.append(.markRead(mark))
    }

    mutating func processConversations(_ request: ConversationsRequest, now: NIODeadline) {
        guard !conversationRequests.lists.contains(request.request) else {
            return violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
        }
        guard (1...UInt64(FrameLimits.maximumConversations)).contains(request.limit) else {
            return answer(ConversationsPage(request: request.request, refusal: .invalidRange))
        }
        guard conversationRequests.lists.count < FrameLimits.maximumListRequests else {
            return answer(ConversationsPage(request: request.request, refusal: .overloaded))
        }
        conversationRequests.lists.insert(request.request)
        actions.append(.listConversations(request))
    }

    mutating func processChange(_ change: ConversationChange, now: NIODeadline) {
        guard change.request != 0, !conversationRequests.changes.contains(change.request) else {
            return violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
        }
        guard conversationRequests.changes.count < configuration.maximumRoomRequests else {
            return answer(
                ConversationState(
                    request: change.request, refusal: .overloaded, conversation: change.conversation,
                    settings: ConversationSettings()))
        }
        conversationRequests.changes.insert(change.request)
        actions.append(.changeConversation(change))
    }

    // MARK: What the host answers

    /// Answers ``ServerAction/listConversations(_:)``. What the credential does not allow to receive is left out.
    public mutating func conversationsListed(_ page: ConversationsPage, now: NIODeadline) {
        guard case .up = phase, conversationRequests.lists.remove(page.request) != nil, let identity else { return }
        var page = page
        page.items.removeAll { !mayReceive($0.conversation, identity) }
        answer(page)
    }

    /// Answers ``ServerAction/changeConversation(_:)``, or with request 0 tells what another device of the user changed.
    public mutating func conversationChanged(_ state: ConversationState, now: NIODeadline) {
        guard case .up = phase else { return }
        guard state.request == 0 || conversationRequests.changes.remove(state.request) != nil else { return }
        answer(state)
    }

    /// How far another user came in a conversation, or this user on another device. Several are told together.
    public mutating func receiptCame(_ receipt: Receipt, now: NIODeadline) {
        guard case .up = phase, let identity, mayReceive(receipt.conversation, identity) else { return }
        let delay =
            switch hold.mode {
            case .foreground: configuration.receiptDelay
            case .background: configuration.backgroundHold
            case .lowPower: configuration.lowPowerHold
            }
        receipts.add(receipt, due: now + delay)
    }

    /// Tells what waits to be told.
    mutating func sendReceipts() {
        guard receipts.dueAt != nil else { return }
        for receipt in receipts.take() { actions.append(.send(.receipt(receipt), lane: .control)) }
    }

    /// Whether the session may read the log that a conversation lies in: a room, or the user's inbox.
    private func mayReceive(_ conversation: ChannelID, _ identity: SessionIdentity) -> Bool {
        switch conversation {
        case .room: identity.may(.receive, conversation)
        case .user: identity.may(.receive, .user(identity.user))
        // What goes to all is no conversation.
        case .all: false
        }
    }

    private mutating func answer(_ page: ConversationsPage) {
        actions.append(.send(.conversationsPage(page), lane: .control))
    }

    private mutating func answer(_ state: ConversationState) {
        actions.append(.send(.conversation(state), lane: .control))
    }
}
