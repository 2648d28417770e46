public import LonglineWire
public import NIOCore

/// Conversations: their list, their settings, and receipts both ways.
extension ClientSession {
    private static let maximumChanges = 16

    /// Asks for a page of the user's conversations; ``ClientAction/conversations(_:)`` brings the answer.
    /// - Returns: false while not connected, or while as many requests as the protocol allows wait for their answers.
    public mutating func conversations(_ request: ConversationsRequest, now: NIODeadline) -> Bool {
        guard phase == .connected, conversationRequests.lists.count < FrameLimits.maximumListRequests,
            conversationRequests.lists.insert(request.request).inserted
        else { return false }
        send(.conversations(request), lane: .control, owed: true, now: now)
        return true
    }

    /// Changes a setting; ``ClientAction/conversationState(_:)`` brings the answer.
    /// - Returns: false while not connected, or while too many requests wait for their answers.
    public mutating func change(_ change: ConversationChange, now: NIODeadline) -> Bool {
        guard phase == .connected, change.request != 0, conversationRequests.changes.count < Self.maximumChanges,
            conversationRequests.changes.insert(change.request).inserted
        else { return false }
        send(.conversationSet(change), lane: .control, owed: true, now: now)
        return true
    }

    /// Says up to where the user read. Once it is stored, ``ClientAction/receipt(_:)`` tells so, with the user as its user.
    /// - Returns: false while not connected.
    public mutating func markRead(_ mark: ReadMark, now: NIODeadline) -> Bool {
        guard phase == .connected else { return false }
        // One that moves nothing has no answer.
        send(.read(mark), lane: .control, owed: false, now: now)
        return true
    }

    /// - Returns: whether the frame was one about conversations.
    mutating func processConversations(_ frame: Frame) -> Bool {
        switch frame {
        case .conversationsPage(let page):
            if conversationRequests.lists.remove(page.request) != nil { actions.append(.conversations(page)) }
        case .conversation(let state):
            let isKnown = state.request == 0 || conversationRequests.changes.remove(state.request) != nil
            if isKnown { actions.append(.conversationState(state)) }
        case .receipt(let receipt): actions.append(.receipt(receipt))
        default: return false
        }
        return true
    }
}
