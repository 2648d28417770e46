import LonglineSession
import LonglineWire
import NIOCore

/// What history, heartbeats, limits, settings and recipients get, in the table's words.
extension SpecifiedAnswers {
    private static func history(
        _ request: UInt64, _ channel: ChannelID = Fixture.inbox, epoch: Epoch = 0, from: Offset = 60,
        _ direction: HistoryDirection = .older, limit: UInt64 = 10
    ) -> Frame {
        .history(
            HistoryRequest(
                request: request, channel: channel, epoch: epoch, from: from, direction: direction, limit: limit))
    }

    /// What frames on a lane of its own get from a client that asked for page 1.
    private static func page(_ frames: Frame...) -> String {
        var session = connectedClient()
        _ = session.history(
            HistoryRequest(request: 1, channel: Fixture.inbox, epoch: 0, from: 60, direction: .older, limit: 10),
            now: now)
        _ = session.drain()
        for frame in frames { session.received(frame, lane: LaneID(rawValue: 7), now: now) }
        let actions = session.drain()
        if let code = actions.endCode { return "\(code.rawValue)" }
        return actions.isEmpty ? "ignored" : "\(actions)"
    }

    /// How many publishes leave at once when the server names these limits.
    private static func publishes(unacknowledged: UInt64, window: UInt64 = 1 << 30) -> Int {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false,
            outbox: (1...1_100).map { Fixture.row($0, after: $0 - 1) }, now: now)
        var connected = Fixture.connected(window: window)
        connected.limits.maximumUnacknowledged = unacknowledged
        session.received(.connected(connected), lane: .control, now: now)
        return session.drain().publishes.count
    }

    /// What a publish with a recipient gets from a session that may publish to all.
    private static func addressed(in channel: ChannelID) -> String {
        var announcer = identity()
        announcer.grants = ChannelPattern("all/*").map { [ChannelGrant(.publish, $0)] } ?? []
        var session = server(announcer)
        var publish = Fixture.publish(1)
        publish.recipient = Fixture.user("bob")
        session.received(.lane(LaneHeader(channel: channel, epoch: 0)), lane: lane, early: false, now: now)
        session.received(.publish(publish), lane: lane, early: false, now: now)
        return words(session.drain())
    }

    static let pasts: Answers = [
        "PUBLISH | recipient | in a room or a broadcast": {
            guard let news = try? ChannelID("all/news") else { return "no channel" }
            return same(addressed(in: .room(hall)), addressed(in: news))
        },
        "HISTORY | request | a number that waits for its answer": { control(history(1), history(1)) },
        "HISTORY | request | over 4 without an answer": { control((1...5).map { history($0) }) },
        "HISTORY | channel | not the user's": { control(history(1, .room(hall))) },
        "HISTORY | channel | not allowed to receive": {
            var session = server(Fixture.identity(mayReceive: false))
            session.received(history(1), lane: .control, early: false, now: now)
            return words(session.drain())
        },
        "HISTORY | epoch | not 0, and not the log's": { control(history(1, epoch: Fixture.epoch + 1)) },
        "HISTORY | from, limit | see section 23": {
            var session = server(head: 5)
            session.received(history(1, from: 6, .newer), lane: .control, early: false, now: now)
            _ = session.drain()
            session.historyRead(1, page: Fixture.page([], after: 5), now: now)
            let few = same(control(history(1, limit: 0)), control(history(1, limit: 101)))
            return same(same(few, control(history(1, from: 0))), words(session.drain()))
        },
        "ERASE_ACCOUNT |  | without the right": {
            var session = server()
            session.received(.eraseAccount, lane: .control, early: false, now: now)
            let refusals = session.drain().frames.compactMap { frame in
                if case .erasureRefused(let refused) = frame { refused.code.rawValue } else { nil }
            }
            return refusals.count == 1 ? "`ERASURE_REFUSED` \(refusals[0])" : "\(refusals)"
        },
        "PING | answer after | over *idle timeout*": {
            let limit = ServerSessionConfiguration().limits.idleTimeout
            let most = control(.ping(Ping(nonce: 1, answerAfter: limit)))
            return most == "ignored" ? control(.ping(Ping(nonce: 1, answerAfter: limit + 1))) : most
        },
        "ENCODINGS | encodings | an unknown one": {
            let answer = control(.encodings(Encodings([BatchEncoding(rawValue: 9)])))
            return answer == "ignored" ? "passed over" : answer
        },
        "CONNECTED | maximum unacknowledged | over 1,024, or 0": {
            let (many, none) = (publishes(unacknowledged: 1 << 40), publishes(unacknowledged: 0))
            return many == 1_024 && none == 1 ? "counts as 1,024, or as 1" : "\(many) and \(none)"
        },
        "CONNECTED | channel window | 0": {
            let count = publishes(unacknowledged: 100, window: 0)
            return count == 1 ? "one publish goes all the same" : "\(count)"
        },
        "PONG | nonce | of nothing asked": {
            var session = connectedClient()
            session.received(
                .pong(Pong(nonce: 99, observedAddress: "192.0.2.1:1")), lane: .control, now: now)
            let actions = session.drain()
            return actions.isEmpty ? "proof of life, as any packet" : "\(actions)"
        },
        "ROOM_SETTINGS |  | not right before the frame that it is for": {
            var session = connectedClient()
            _ = session.listMembers(MembersRequest(request: 1, room: hall, after: nil, limit: 10), now: now)
            _ = session.drain()
            let settings = Frame.roomSettings(
                RoomSettings(
                    room: hall, position: Position(epoch: 1, offset: 5), joining: .anyone, publishing: .members,
                    role: .owner))
            let between = Frame.pong(Pong(nonce: 99, observedAddress: "192.0.2.1:1"))
            let page = Frame.membersPage(MembersPage(request: 1, total: 0, members: [], more: false))
            for frame in [settings, between, page] { session.received(frame, lane: .control, now: now) }
            let actions = session.drain()
            guard case .members(_, let told)? = actions.last else { return "\(actions)" }
            return told == nil ? "ignored" : "\(actions)"
        },
        "HISTORY_PAGE | request | of nothing asked": {
            page(.historyPage(HistoryAnswer(request: 9, epoch: 1, start: 0, end: 0, more: false, items: 0)))
        },
        "HISTORY_PAGE | start, end, items | a hole": {
            page(
                .historyPage(HistoryAnswer(request: 1, epoch: 1, start: 0, end: 5, more: false, items: 1)),
                .skip(Skip(previous: 0, to: 4, reason: .expired)))
        },
    ]
}
