import NIOCore

// The bodies of lane 0's frames. Each `write` names its fields in wire order, and `init(from:)` reads the same order.

extension Credential {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        switch self {
        case .token(let token):
            sink.byte(0)
            try sink.string(token, limit: FrameLimits.maximumToken, "token")
        case .ticket(let ticket):
            sink.byte(1)
            try sink.bytes(ticket, limit: FrameLimits.maximumTicket, "ticket")
        }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let kind = try reader.byte("credential kind")
        switch kind {
        case 0: self = .token(try reader.string("token", limit: FrameLimits.maximumToken))
        case 1: self = .ticket(try reader.bytes("ticket", limit: FrameLimits.maximumTicket))
        default: throw reader.malformed("credential kind", "has an unknown value")
        }
    }
}

extension Connect {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard !versions.isEmpty else { throw FrameError(.unrepresentable, message: "versions is empty") }
        try sink.count(versions.count, limit: FrameLimits.maximumVersions, "versions")
        for version in versions { try sink.varint(UInt64(version), "version") }
        try credential.write(to: &sink)
        sink.producer(producer)
        try sink.varint(connectNumber, "connect number")
        try sink.varint(cursorVersion, "cursor version")
        try cursors.write(to: &sink, "cursors")
        try sink.string(agent, limit: FrameLimits.maximumAgent, "agent")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let versionCount = try reader.count("versions", limit: FrameLimits.maximumVersions)
        guard versionCount > 0 else { throw reader.malformed("versions", "is empty") }
        var versions: [UInt32] = []
        for _ in 0..<versionCount { versions.append(try reader.varint32("version")) }
        let credential = try Credential(from: &reader)
        let producer = try reader.producer("producer")
        let connectNumber = try reader.varint("connect number")
        let cursorVersion = try reader.varint("cursor version")
        let cursors = try [ChannelPosition](from: &reader, "cursors")
        self.init(
            versions: versions, credential: credential, producer: producer, connectNumber: connectNumber,
            cursorVersion: cursorVersion, cursors: cursors,
            agent: try reader.string("agent", limit: FrameLimits.maximumAgent))
    }
}

extension Connected {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(UInt64(version), "version")
        sink.fixed(session)
        sink.byte(resumed ? 1 : 0)
        try sink.varint(serverTime, "server time")
        try sink.string(observedAddress, limit: FrameLimits.maximumAddress, "observed address")
        try sink.varint(credentialExpiry, "credential expiry")
        try limits.write(to: &sink)
        try sink.varint(cursorVersion, "cursor version")
        try sink.count(channels.count, limit: FrameLimits.maximumCursors, "channels")
        for answer in channels {
            sink.channel(answer.channel)
            try sink.position(answer.head, "head")
            sink.byte(answer.recovery.rawValue)
        }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let version = try reader.varint32("version")
        let session = try reader.fixed("session")
        let resumed = try reader.flags("resumed", known: 1) == 1
        let serverTime = try reader.varint("server time")
        let observedAddress = try reader.string("observed address", limit: FrameLimits.maximumAddress)
        let credentialExpiry = try reader.varint("credential expiry")
        let limits = try SessionLimits(from: &reader)
        let cursorVersion = try reader.varint("cursor version")
        var channels: [ChannelAnswer] = []
        for _ in 0..<(try reader.count("channels", limit: FrameLimits.maximumCursors)) {
            channels.append(
                ChannelAnswer(
                    channel: try reader.channel("channel"), head: try reader.position("head"),
                    recovery: try reader.choice("recovery")))
        }
        self.init(
            version: version, session: session, resumed: resumed, serverTime: serverTime,
            observedAddress: observedAddress, credentialExpiry: credentialExpiry, limits: limits,
            cursorVersion: cursorVersion, channels: channels)
    }
}

extension SessionLimits {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(maximumPayload, "maximum payload")
        try sink.varint(channelWindow, "channel window")
        try sink.varint(maximumUnacknowledged, "maximum unacknowledged")
        try sink.varint(minimumHeartbeat, "minimum heartbeat")
        try sink.varint(idleTimeout, "idle timeout")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            maximumPayload: try reader.varint("maximum payload"), channelWindow: try reader.varint("channel window"),
            maximumUnacknowledged: try reader.varint("maximum unacknowledged"),
            minimumHeartbeat: try reader.varint("minimum heartbeat"), idleTimeout: try reader.varint("idle timeout"))
    }
}

extension Close {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(UInt64(code.rawValue), "code")
        try sink.string(reason, limit: FrameLimits.maximumReason, "reason")
        try sink.varint(retryAfter, "retry after")
        try sink.string(accessPoint, limit: FrameLimits.maximumAccessPoint, "access point")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            code: CloseCode(rawValue: try reader.varint32("code")),
            reason: try reader.string("reason", limit: FrameLimits.maximumReason),
            retryAfter: try reader.varint("retry after"),
            accessPoint: try reader.string("access point", limit: FrameLimits.maximumAccessPoint))
    }
}

extension Ping {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(nonce)
        try sink.varint(answerAfter, "answer after")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(nonce: try reader.fixed("nonce"), answerAfter: try reader.varint("answer after"))
    }
}

extension Pong {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(nonce)
        try sink.string(observedAddress, limit: FrameLimits.maximumAddress, "observed address")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            nonce: try reader.fixed("nonce"),
            observedAddress: try reader.string("observed address", limit: FrameLimits.maximumAddress))
    }
}

extension Ticket {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.bytes(ticket, limit: FrameLimits.maximumTicket, "ticket")
        try sink.varint(expiry, "expiry")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            ticket: try reader.bytes("ticket", limit: FrameLimits.maximumTicket), expiry: try reader.varint("expiry"))
    }
}

extension Refresh {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.string(token, limit: FrameLimits.maximumToken, "token")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(token: try reader.string("token", limit: FrameLimits.maximumToken))
    }
}

extension Refreshed {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(credentialExpiry, "credential expiry")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(credentialExpiry: try reader.varint("credential expiry"))
    }
}

extension RoomRequest {
    func write(to sink: inout some FrameSink) {
        sink.fixed(request)
        sink.identifier(room.description)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(request: try reader.fixed("request"), room: try reader.room("room"))
    }
}

extension RoomAnswer {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        if let refusal {
            try refusal.write(to: &sink)
        } else {
            sink.uncheckedVarint(0)
        }
        try sink.position(position, "offset")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let request = try reader.fixed("request")
        let refusal = try reader.varint32("refusal")
        self.init(
            request: request, refusal: refusal == 0 ? nil : RefusalCode(rawValue: refusal),
            position: try reader.position("position"))
    }
}

extension SessionMode {
    func write(to sink: inout some FrameSink) { sink.byte(rawValue) }

    init(from reader: inout FrameReader) throws(FrameError) { self = try reader.choice("mode") }
}

extension ChannelStopped {
    func write(to sink: inout some FrameSink) { sink.channel(channel) }

    init(from reader: inout FrameReader) throws(FrameError) { self.init(channel: try reader.channel("channel")) }
}
