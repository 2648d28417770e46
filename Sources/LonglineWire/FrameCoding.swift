import NIOCore

extension Frame {
    /// Writes the body, without its header.
    func writeBody(to sink: inout some FrameSink) throws(FrameError) {
        switch self {
        case .connect(let body): try body.write(to: &sink)
        case .connected(let body): try body.write(to: &sink)
        case .close(let body): try body.write(to: &sink)
        case .ping(let body): try body.write(to: &sink)
        case .pong(let body): try body.write(to: &sink)
        case .ticket(let body): try body.write(to: &sink)
        case .refresh(let body): try body.write(to: &sink)
        case .refreshed(let body): try body.write(to: &sink)
        case .join(let body), .leave(let body): body.write(to: &sink)
        case .room(let body): body.write(to: &sink)
        case .roomAnswer(let body): try body.write(to: &sink)
        case .members(let body): try body.write(to: &sink)
        case .membersPage(let body): try body.write(to: &sink)
        case .mode(let body): body.write(to: &sink)
        case .history(let body): try body.write(to: &sink)
        case .historyPage(let body): try body.write(to: &sink)
        case .logout: break
        case .stopped(let body): body.write(to: &sink)
        case .behind(let body): try body.write(to: &sink)
        case .conversations(let body): try body.write(to: &sink)
        case .conversationsPage(let body): try body.write(to: &sink)
        case .read(let body): try body.write(to: &sink)
        case .conversationSet(let body): try body.write(to: &sink)
        case .receipt(let body): try body.write(to: &sink)
        case .conversation(let body): try body.write(to: &sink)
        case .signal(let body): try body.write(to: &sink)
        case .lane(let body): body.write(to: &sink)
        case .publish(let body): try body.write(to: &sink)
        case .published(let body): try body.write(to: &sink)
        case .refused(let body): try body.write(to: &sink)
        case .deliver(let body): try body.write(to: &sink)
        case .skip(let body): try body.write(to: &sink)
        case .gap(let body): try body.write(to: &sink)
        case .acknowledge(let body): try body.write(to: &sink)
        }
    }

    /// Reads a whole body.
    init(type: FrameType, body: ByteBuffer) throws(FrameError) {
        var reader = FrameReader(body, type: type)
        switch type {
        case .connect: self = .connect(try Connect(from: &reader))
        case .connected: self = .connected(try Connected(from: &reader))
        case .close: self = .close(try Close(from: &reader))
        case .ping: self = .ping(try Ping(from: &reader))
        case .pong: self = .pong(try Pong(from: &reader))
        case .ticket: self = .ticket(try Ticket(from: &reader))
        case .refresh: self = .refresh(try Refresh(from: &reader))
        case .refreshed: self = .refreshed(try Refreshed(from: &reader))
        case .join: self = .join(try RoomRequest(from: &reader))
        case .leave: self = .leave(try RoomRequest(from: &reader))
        case .room: self = .room(try RoomCommand(from: &reader))
        case .roomAnswer: self = .roomAnswer(try RoomAnswer(from: &reader))
        case .members: self = .members(try MembersRequest(from: &reader))
        case .membersPage: self = .membersPage(try MembersPage(from: &reader))
        case .mode: self = .mode(try SessionMode(from: &reader))
        case .history: self = .history(try HistoryRequest(from: &reader))
        case .historyPage: self = .historyPage(try HistoryAnswer(from: &reader))
        case .logout: self = .logout
        case .stopped: self = .stopped(try ChannelStopped(from: &reader))
        case .behind: self = .behind(try ChannelLag(from: &reader))
        case .conversations: self = .conversations(try ConversationsRequest(from: &reader))
        case .conversationsPage: self = .conversationsPage(try ConversationsPage(from: &reader))
        case .read: self = .read(try ReadMark(from: &reader))
        case .conversationSet: self = .conversationSet(try ConversationChange(from: &reader))
        case .receipt: self = .receipt(try Receipt(from: &reader))
        case .conversation: self = .conversation(try ConversationState(from: &reader))
        case .signal: self = .signal(try Signal(from: &reader))
        case .lane: self = .lane(try LaneHeader(from: &reader))
        case .publish: self = .publish(try Publish(from: &reader))
        case .published: self = .published(try Published(from: &reader))
        case .refused: self = .refused(try Refused(from: &reader))
        case .deliver: self = .deliver(try Deliver(from: &reader))
        case .skip: self = .skip(try Skip(from: &reader))
        case .gap: self = .gap(try Gap(from: &reader))
        case .acknowledge: self = .acknowledge(try Acknowledge(from: &reader))
        }
        try reader.finish()
    }
}
