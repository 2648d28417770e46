import LonglineSession
import LonglineWire
import NIOCore

/// Frames and names that an input chooses: mostly small numbers, so that they meet one another, sometimes the largest.
struct SessionChoices {
    var input: FuzzInput
    /// Three channels: the user's inbox, a room, and somebody else's inbox.
    let channels: [ChannelID]
    let users: [UserID]
    let device: DeviceID
    let rooms: [RoomID]
    let tenant: TenantID
    let epochs: [Epoch] = [0, 7, 8, .max]

    init(_ input: FuzzInput) throws {
        self.input = input
        users = [try UserID("alice"), try UserID("bob")]
        rooms = [try RoomID("room"), try RoomID("hall")]
        device = try DeviceID("phone")
        tenant = try TenantID("tenant")
        channels = [.user(users[0]), .room(rooms[0]), .user(users[1]), .room(rooms[1])]
    }

    mutating func number() -> UInt64 {
        let byte = input.byte()
        return byte < 250 ? UInt64(byte % 40) : [0, 1 << 20, 1 << 32, FrameLimits.maximumNumber][Int(byte % 4)]
    }

    mutating func channel() -> ChannelID { channels[Int(input.byte()) % channels.count] }
    mutating func epoch() -> Epoch { epochs[Int(input.byte()) % epochs.count] }
    mutating func position() -> Position { Position(epoch: epoch(), offset: number()) }
    mutating func lane() -> LaneID {
        let byte = input.byte()
        return LaneID(rawValue: byte < 240 ? UInt64(byte % 6) : [600, 5_000, 1 << 40, .max][Int(byte % 4)])
    }
    mutating func payload() -> ByteBuffer {
        let byte = input.byte()
        return ByteBuffer(repeating: 1, count: byte < 200 ? Int(byte % 16) : Int(byte) * 60)
    }

    mutating func entry() -> Entry {
        let previous = number()
        let kind = EntryKind(rawValue: input.byte() % 16) ?? .message
        return Entry(
            offset: input.byte() & 3 == 0 ? number() : previous + 1, previous: previous, kind: kind,
            sender: users[1], device: device, producer: ProducerID(high: 1, low: 1), publishID: number(),
            recipient: nil, origin: nil, target: kind.namesEntry ? number() : nil, time: number(), expiry: 0,
            payload: payload(), following: following())
    }

    /// Mostly nothing, else a number or two parts' worth.
    mutating func following() -> UInt64 {
        let byte = input.byte()
        return byte < 200 ? 0 : byte < 240 ? UInt64(byte - 199) : number()
    }

    /// A run of entries, sometimes of something else, sometimes damaged.
    mutating func batch() -> Batch {
        var run: [Frame] = []
        for _ in 0..<(1 + Int(input.byte() % 8)) {
            var entry = entry()
            entry.following = 0
            entry.sender = users[Int(input.byte() & 1)]
            run.append(.deliver(Deliver(entry: entry, redelivered: false)))
        }
        guard var batch = Batch(of: run) else {
            let bytes = payload()
            let encoding = BatchEncoding(rawValue: UInt32(input.byte() & 3))
            return Batch(groups: [
                Batch.Group(encoding: encoding, count: 1, length: bytes.readableBytes, bytes: bytes)
            ])
        }
        let index = Int(input.byte()) % batch.groups.count
        switch input.byte() & 15 {
        case 0: batch.groups[index].length = max(1, batch.groups[index].length - 1)
        case 1: batch.groups[index].count += 1
        case 2:
            let bytes = batch.groups[index].bytes
            batch.groups[index].bytes = bytes.getSlice(at: bytes.readerIndex, length: bytes.readableBytes / 2) ?? bytes
        case 3: batch.groups[index].encoding = BatchEncoding(rawValue: UInt32(input.byte() & 3))
        default: break
        }
        return batch
    }

    mutating func part() -> Part {
        let bytes = input.byte()
        return Part(offset: number(), bytes: ByteBuffer(repeating: 1, count: Int(bytes % 24)))
    }

    mutating func publish() -> Publish {
        let id = number()
        let after = input.byte() & 3 == 0 ? number() : (id > 0 ? id - 1 : 0)
        let recipient = input.byte() & 3 == 0 ? users[Int(input.byte() & 1)] : nil
        return Publish(
            id: id, tag: UInt64(input.byte() & 3), after: after, recipient: recipient, kind: publishKind(),
            timeToLive: number(), payload: payload(), following: following())
    }

    mutating func publishKind() -> PublishKind {
        switch input.byte() % 16 {
        case 0: .edit(position())
        case 1: .retract(position())
        case 2: .react(position())
        case 3: .reply(position())
        case 4: .request
        default: .message
        }
    }

    mutating func connect() -> Connect {
        let credential: Credential =
            input.byte() & 1 == 0 ? .ticket(ByteBuffer(string: "t")) : .token("token")
        let cursors = places()
        return Connect(
            versions: [input.byte() & 15 == 0 ? 2 : 1], credential: credential,
            producer: ProducerID(high: 1, low: UInt64(input.byte() & 1)), connectNumber: number(),
            cursorVersion: number(), cursors: cursors, agent: "fuzz")
    }

    mutating func places() -> [ChannelPosition] {
        (0..<(input.byte() % 4)).map { _ in ChannelPosition(channel: channel(), position: position()) }
    }

    mutating func limits() -> SessionLimits {
        let small = input.byte() & 1 == 0
        return SessionLimits(
            maximumPayload: small ? 1_000 : number(), channelWindow: small ? 4_000 : number(),
            maximumUnacknowledged: small ? 5 : number(), minimumHeartbeat: small ? 100 : number(),
            idleTimeout: small ? 60_000 : number())
    }

    mutating func connected() -> Connected {
        var answers: [ChannelAnswer] = []
        for _ in 0..<(input.byte() % 5) {
            answers.append(
                ChannelAnswer(
                    channel: channel(), head: position(),
                    recovery: Recovery(rawValue: input.byte() % 3) ?? .fresh))
        }
        return Connected(
            version: input.byte() & 31 == 0 ? 2 : 1, session: 1, resumed: false, serverTime: number(),
            observedAddress: "192.0.2.1:\(input.byte() & 1)", credentialExpiry: number(), limits: limits(),
            cursorVersion: number(), channels: answers)
    }

    /// Any frame, wherever it belongs.
    mutating func frame() -> Frame {
        let room = rooms[Int(input.byte() & 1)]
        switch input.byte() % 46 {
        case 0: return .connect(connect())
        case 1: return .connected(connected())
        case 2: return .close(Close(code: CloseCode(rawValue: UInt32(truncatingIfNeeded: number()))))
        case 3: return .ping(Ping(nonce: number()))
        case 4: return .pong(Pong(nonce: number(), observedAddress: "192.0.2.1:\(input.byte() & 1)"))
        case 5: return .ticket(Ticket(ticket: ByteBuffer(string: "t"), expiry: number()))
        case 6: return .refresh(Refresh(token: "token"))
        case 7: return .refreshed(Refreshed(credentialExpiry: number()))
        case 8: return .join(RoomRequest(request: number(), room: room))
        case 9: return .leave(RoomRequest(request: number(), room: room))
        case 10: return .roomAnswer(RoomAnswer(request: number(), refusal: nil, position: position()))
        case 11: return .lane(LaneHeader(channel: channel(), epoch: epoch()))
        case 12: return .publish(publish())
        case 13: return .published(Published(id: number(), position: position(), time: number()))
        case 14: return .refused(refused())
        case 15: return .deliver(Deliver(entry: entry(), redelivered: false))
        case 16: return .skip(Skip(previous: number(), to: number(), reason: .expired))
        case 17: return .gap(Gap(from: position(), first: number()))
        case 18: return .acknowledge(Acknowledge(offset: number()))
        case 19: return .room(RoomCommand(request: number(), room: room, action: roomAction()))
        case 20: return .members(MembersRequest(request: number(), room: room, after: nil, limit: number()))
        case 21: return .membersPage(MembersPage(request: number(), total: number(), members: [], more: false))
        case 22...27: return conversationFrame()
        case 28: return .signal(signal(isFromServer: input.byte() & 1 == 0))
        case 29: return .subscribe(PresenceRequest(request: number(), users: [users[Int(input.byte() & 1)]]))
        case 30: return .unsubscribe(PresenceEnd(users: input.byte() & 1 == 0 ? [] : [users[0]]))
        case 31: return .presence(presence())
        case 32: return .presenceAnswer(PresenceAnswer(request: number(), refusal: nil))
        case 33: return .visibility(.stateOnly)
        case 36, 37: return .part(part())
        case 34:
            return .urgency(ChannelUrgency(channel: channel(), urgency: Urgency(rawValue: input.byte() % 3) ?? .chat))
        case 35:
            return .behind(ChannelLag(channel: channel(), head: position(), isBehind: input.byte() & 1 == 1))
        case 38: return .eraseAccount
        case 39: return .erasureRefused(ErasureRefused(code: .overloaded, retryAfter: number()))
        case 40: return .encodings(Encodings([BatchEncoding(rawValue: UInt32(input.byte() & 3))], plain: [channel()]))
        case 41, 42: return .batch(batch())
        case 43:
            return .roomSettings(
                RoomSettings(room: room, position: position(), joining: .byOwners, publishing: .owners, role: .member))
        case 44: return .cursors(Cursors(places(), areAll: input.byte() & 1 == 1))
        case 45: return .ahead(CursorsAhead(places()))
        default: return .lane(LaneHeader(channel: channel(), epoch: 7))
        }
    }

    mutating func roomAction() -> RoomAction {
        switch input.byte() % 6 {
        case 0: .add(users[1])
        case 1: .remove(users[0])
        case 2: .setRole(.owner, of: users[1])
        case 3: .setJoining(.byOwners)
        case 4: .setPublishing(.owners)
        default: .delete
        }
    }

    private mutating func conversationFrame() -> Frame {
        let kind: ReceiptKind = input.byte() & 1 == 0 ? .read : .delivered
        switch input.byte() % 6 {
        case 0: return .conversations(ConversationsRequest(request: number(), after: ByteBuffer(), limit: number()))
        case 1: return .conversationsPage(ConversationsPage(request: number(), next: ByteBuffer(), items: []))
        case 2: return .read(ReadMark(conversation: channel(), position: position(), isPrivate: kind == .read))
        case 3:
            return .conversationSet(
                ConversationChange(request: number(), conversation: channel(), setting: .mute(until: number())))
        case 4:
            return .conversation(
                ConversationState(
                    request: number(), refusal: nil, conversation: channel(), settings: ConversationSettings()))
        default:
            return .receipt(Receipt(conversation: channel(), user: users[0], kind: kind, position: position()))
        }
    }

    mutating func signal(isFromServer: Bool) -> Signal {
        Signal(
            channel: channel(), kind: SignalKind(rawValue: input.byte() & 3), deadline: number(),
            sender: isFromServer ? SignalSender(user: users[1], device: device) : nil,
            payload: ByteBuffer(repeating: 1, count: Int(input.byte())))
    }

    mutating func presence() -> PresenceUpdate {
        PresenceUpdate(
            user: users[Int(input.byte() & 1)], state: PresenceState(rawValue: input.byte() % 3) ?? .away,
            lastSeen: number())
    }

    mutating func refused() -> Refused {
        let code = RefusalCode(rawValue: UInt32(input.byte() % 20) + 1)
        return Refused(id: number(), code: code, lastID: number(), retryAfter: number())
    }

    /// What arrives on a lane when it is bytes that nobody wrote: frames, and an error if there is one.
    mutating func bytes() -> (frames: [Frame], error: FrameError?) {
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer(bytes: input.bytes(Int(input.byte()))))
        var frames: [Frame] = []
        do throws(FrameError) {
            while let frame = try decoder.next() { frames.append(frame) }
            return (frames, nil)
        } catch {
            return (frames, error)
        }
    }

    mutating func time() -> TimeAmount { .milliseconds(Int64(1) << Int64(input.byte() % 18)) }
}
