import Foundation
import LonglineClient
import LonglineWire
import NIOCore

/// What the client commands print.
enum Terminal {
    /// Writes a line at once: what is confirmed after it must not wait in a buffer.
    /// - Throws: when standard output takes no more, a closed pipe for instance.
    static func say(_ text: String) throws(OutputError) {
        try Output.write("\(text)\n".utf8)
    }

    static func note(_ text: String) { try? say("* \(text)") }

    static func error(_ error: any Error) { Output.report("! \(printable("\(error)"))") }

    /// Says on standard error what becomes of a client's connection: everything, or only why there is none, once each time.
    static func tellTrouble(of client: LonglineClient, andAll: Bool = false) -> Task<Void, Never> {
        Task {
            var isTold = false
            for await state in client.states {
                let isTrouble = if case .waiting = state { !isTold } else { false }
                if andAll || isTrouble { Output.report("* \(describe(state))") }
                if isTrouble { isTold = true }
                if state.isConnected { isTold = false }
                if state.stopError != nil { return }
            }
        }
    }

    /// One line about a state, for people.
    static func describe(_ state: ConnectionState) -> String {
        switch state {
        case .disconnected: return "disconnected"
        case .upgradeRequired(let code, let reason):
            return "the service asks for a newer version (\(code.rawValue)): \(printable(reason))"
        case .standby: return "another process is connected"
        case .locating(let attempt):
            return attempt == 1 ? "asking where to connect" : "asking where to connect, attempt \(attempt)"
        case .connecting(let attempt, let accessPoint):
            return attempt == 1 ? "connecting to \(accessPoint)" : "connecting to \(accessPoint), attempt \(attempt)"
        case .connected(let info):
            var text = "connected to \(info.remoteAddress) in \(milliseconds(info.connectTime)) ms"
            if info.earlyData { text += " (0-RTT)" } else if info.transportResumed { text += " (resumed)" }
            if let local = info.localAddress { text += " from \(local)" }
            return text + ", seen as \(info.observedAddress)"
        case .migrating(let cause):
            switch cause {
            case .requested: return "moving to another path"
            case .addressGone: return "the local address is gone, moving to another path"
            case .noAnswer: return "the path doesn't answer, moving to another"
            }
        case .waiting(let delay, let cause): return "waiting \(milliseconds(delay)) ms: \(printable("\(cause)"))"
        case .stopped(let code, let reason): return "stopped by the service (\(code.rawValue)): \(printable(reason))"
        }
    }

    /// Characters of a message that a line holds.
    private static let lineLength = 2000

    /// One line for a message.
    /// - Parameter file: where its payload was written to; nil: it is a text, of which a line holds the beginning.
    static func describe(_ message: Message, file: String? = nil) -> String {
        var text = ""
        if message.gapBefore != nil { text += "[messages before this one are gone]\n" }
        switch message.channel {
        case .room(let room): text += "#\(room) "
        case .all(let broadcast): text += "!\(broadcast) "
        case .user: break
        }
        switch message.kind {
        case .joined: return text + "* \(membership(message, own: "joined", other: "added"))"
        case .left: return text + "* \(membership(message, own: "left", other: "removed"))"
        case .changed: return text + "* \(message.sender) \(describe(message.change))"
        case .message, .request, .edited, .retracted, .reacted, .reply: break
        }
        text += "\(message.sender)"
        if let recipient = message.recipient { text += " to \(recipient)" }
        text += verb(of: message) + ": "
        let bytes = message.payload.readableBytes
        if let file { return text + "\(file) (\(bytes) bytes)" }
        let whole = message.text
        let shown = whole.prefix(lineLength)
        return text + printable(String(shown)) + (shown.endIndex < whole.endIndex ? " … (\(bytes) bytes)" : "")
    }

    /// What an entry does that is no plain message, with the place of what it is about.
    private static func verb(of message: Message) -> String {
        let place = message.target.map { " \($0.offset)" } ?? ""
        return switch message.kind {
        case .message, .joined, .left, .changed: ""
        case .edited: " edits" + place
        case .retracted: " retracts" + place
        case .reacted: " reacts to" + place
        case .reply: " replies to" + place
        case .request: " asks"
        }
    }

    private static func membership(_ message: Message, own: String, other: String) -> String {
        guard let member = message.member, member != message.sender else { return "\(message.sender) \(own)" }
        return "\(message.sender) \(other) \(member)"
    }

    /// One line for a signal.
    static func describe(_ signal: ReceivedSignal) -> String {
        let place = if case .room(let room) = signal.channel { "#\(room) " } else { "" }
        let kind =
            switch signal.kind {
            case .typing: "is typing"
            case .readPosition: "has read"
            case .presenceHint: "is there"
            default: "signals \(signal.kind.rawValue)"
            }
        let text = String(buffer: signal.payload)
        return place + "\(signal.sender) \(kind)" + (text.isEmpty ? "" : ": \(printable(text))")
    }

    /// One line about a user.
    static func describe(_ presence: Presence) -> String {
        var text = "\(presence.user) is \(presence.state)"
        if let time = presence.lastSeen {
            let date = Date(timeIntervalSince1970: Double(time) / 1000)
            text += ", last seen \(date.formatted(.iso8601))"
        }
        return text
    }

    /// Text from others can't move the cursor, change colours, begin a line, or turn the direction of what is around it.
    static func printable(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { isHarmless($0.properties) ? $0 : " " }))
    }

    private static func isHarmless(_ scalar: Unicode.Scalar.Properties) -> Bool {
        switch scalar.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: false
        default: !scalar.isBidiControl
        }
    }

    static func milliseconds(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        return String(format: "%.1f", Double(seconds) * 1000 + Double(attoseconds) / 1e15)
    }
}
