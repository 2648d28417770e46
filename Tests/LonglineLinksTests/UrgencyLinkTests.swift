import LonglineLinks
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Testing

/// What is urgent leaves first, over a path that takes less than there is to send.
@Suite("Urgency over QUIC", .timeLimit(.minutes(1)))
struct UrgencyLinkTests {
    private static let bulk = LaneID(rawValue: 1)
    private static let chat = LaneID(rawValue: 2)
    private static let frames = 24

    /// 24 frames of 8 KB each on two lanes: less than a stream's flow control, and many times a path's first window.
    private static func fill(_ link: any Link) {
        link.openLane(bulk)
        link.openLane(chat)
        link.prioritize(bulk, .bulk)
        for lane in [bulk, chat] {
            for number in 1...UInt64(frames) {
                let publish = Publish(
                    id: number, tag: 1, after: number - 1, recipient: nil, timeToLive: 0,
                    payload: ByteBuffer(repeating: 1, count: 8_000))
                link.send(.publish(publish), lane: lane)
            }
        }
    }

    /// How many bulk frames came before the last of chat.
    private func bulkBeforeChat(_ log: LinkLog) async throws -> Int {
        var counts: [LaneID: Int] = [:]
        while counts[Self.chat] ?? 0 < Self.frames {
            let (_, lane, _) = try await log.frame()
            counts[lane, default: 0] += 1
        }
        let before = counts[Self.bulk] ?? 0
        // All of it comes.
        while counts[Self.bulk] ?? 0 < Self.frames {
            let (_, lane, _) = try await log.frame()
            counts[lane, default: 0] += 1
        }
        return before
    }

    @Test("What a bulk lane sent first comes behind a chat lane, in both directions", arguments: [true, false])
    func chatGoesFirst(fromClient: Bool) async throws {
        try await withLinks { event, link in
            guard !fromClient, case .frame(.ping, _, _) = event else { return }
            Self.fill(link)
        } body: { connector, target, server, loop in
            let relay = try await Relay.open(
                to: SocketAddress(ipAddress: "127.0.0.1", port: target.port), delay: .milliseconds(5))
            var target = target
            target.port = relay.port
            do {
                let log = try await connector.link(target, on: loop) { event, link in
                    guard event == .established else { return }
                    if fromClient { Self.fill(link) } else { link.send(ping(1), lane: .control) }
                }
                let before = try await bulkBeforeChat(fromClient ? server : log)
                // Taking turns, all but one of them would.
                #expect(before <= Self.frames / 4)
            } catch {
                await relay.close()
                throw error
            }
            await relay.close()
        }
    }

    @Test("Bulk has half of the connection's flow control, so that there is room for the others")
    func sendBuffer() {
        for settings in [TransportSettings.longline, .longlineServer] {
            #expect(settings.backgroundSendBuffer == Int(settings.connectionWindow) / 2)
        }
    }
}
