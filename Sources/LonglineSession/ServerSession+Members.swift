public import LonglineWire
public import NIOCore

/// Requests for members of one link, answered one after another on lane 0.
///
/// Bounded: so many wait (``LonglineWire/FrameLimits/maximumMembersRequests``), one is read, and none while lane 0 holds more
/// than the link takes without delay. So a client that asks and doesn't listen costs a page or two.
struct MemberListQueue {
    fileprivate(set) var waiting: [MembersRequest] = []
    /// The first of those that wait is being read.
    fileprivate(set) var isReading = false
    fileprivate(set) var isWritable = true
}

/// Paging through the members of a room.
extension ServerSession {
    mutating func processMembers(_ request: MembersRequest, now: NIODeadline) {
        guard !memberList.waiting.contains(where: { $0.request == request.request }) else {
            return violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
        }
        guard memberList.waiting.count < FrameLimits.maximumMembersRequests else {
            return violated(.limitExceeded, "too many requests for members without an answer", now: now)
        }
        memberList.waiting.append(request)
        advanceMembers()
    }

    /// Answers ``ServerAction/listMembers(_:)``.
    /// - Parameters:
    ///   - page: what the client is told.
    ///   - settings: the room's, where there is a page: the client is told them right before.
    ///   - now: the time of this call.
    public mutating func membersRead(_ page: MembersPage, settings: RoomSettings? = nil, now: NIODeadline) {
        guard case .up = phase, memberList.isReading, memberList.waiting.first?.request == page.request else { return }
        memberList.isReading = false
        answerMembers(with: page, settings)
        advanceMembers()
    }

    mutating func memberListWritable(_ writable: Bool) {
        memberList.isWritable = writable
        advanceMembers()
    }

    /// Works off requests in their order, up to the first that needs a read.
    private mutating func advanceMembers() {
        while case .up = phase, !memberList.isReading, memberList.isWritable, let request = memberList.waiting.first {
            if identity?.may(.receive, .room(request.room)) != true {
                answerMembers(with: MembersPage(request: request.request, refusal: .forbidden))
            } else if !(1...UInt64(FrameLimits.maximumMembers)).contains(request.limit) {
                answerMembers(with: MembersPage(request: request.request, refusal: .invalidRange))
            } else {
                memberList.isReading = true
                actions.append(.listMembers(request))
            }
        }
    }

    private mutating func answerMembers(with page: MembersPage, _ settings: RoomSettings? = nil) {
        memberList.waiting.removeFirst()
        if let settings { actions.append(.send(.roomSettings(settings), lane: .control)) }
        actions.append(.send(.membersPage(page), lane: .control))
    }
}
