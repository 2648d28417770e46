import BenchmarkHarness
import Foundation
import LonglineLinks
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine

/// The members, all on one loop.
final class Crowd: @unchecked Sendable {
    // Proof: what changes is touched on the loop only, where each method brings its work.
    private let loop: any EventLoop
    private let connector: QUICLinkConnector
    private let tally: Tally
    private var members: [Member] = []

    /// Connects everybody, some at a time: a thousand handshakes at once would lose packets.
    init(folder: String, port: Int, size: Int) async throws {
        let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        self.loop = loop
        connector = QUICLinkConnector()
        tally = Tally(size: size)
        let directory = try ServerDirectory(folder)
        let pin = try directory.developmentIdentity(names: ["localhost"]).pin
        var target = QUICLinkTarget(
            host: "127.0.0.1", port: port, serverName: "localhost", verification: .pinnedPublicKey(sha256: [pin]))
        target.earlyData = false
        let (chosen, channel) = (target, ChannelID.room(try RoomID(Names.room)))
        let (tenant, device) = (try TenantID(Names.tenant), try DeviceID(Names.device))
        var number = 0
        while number < size {
            var tokens: [String] = []
            while tokens.count < 32, number < size {
                tokens.append(
                    try await directory.sign(
                        tenant: tenant, user: UserID(Names.user(number)), device: device, lifetime: 3_600_000))
                number += 1
            }
            let batch = tokens
            try await loop.flatSubmit { [self] in
                let connected = batch.map { token in
                    let member = Member(loop: loop, channel: channel, token: token, tally: tally)
                    let promise = loop.makePromise(of: Void.self)
                    member.whenConnected = promise
                    member.open(connector, chosen)
                    members.append(member)
                    return promise.futureResult
                }
                return EventLoopFuture.andAllSucceed(connected, on: loop)
            }.get()
        }
        // What the connects brought is taken in and acknowledged.
        try await Task.sleep(for: .seconds(1))
    }

    private func publish(due: ContinuousClock.Instant) { members[0].publish(tally.payload(due: due)) }

    /// Publishes for a while, so that so many messages are under way to somebody.
    /// - Returns: the deliveries until everybody had everything, and how long that took.
    func flood(for time: Duration, window: Int) async throws -> (deliveries: Int, time: Duration) {
        try await loop.flatSubmit { [self] in
            let promise = loop.makePromise(of: (deliveries: Int, time: Duration).self)
            let (start, before) = (ContinuousClock.now, tally.deliveries)
            tally.whenEverybodyHasOne = { [self] in
                let now = ContinuousClock.now
                if now - start < time { return publish(due: now) }
                guard tally.underWay == 0 else { return }
                tally.whenEverybodyHasOne = {}
                promise.succeed((tally.deliveries - before, now - start))
            }
            for _ in 0..<window { publish(due: start) }
            return promise.futureResult
        }.get()
    }

    /// Publishes at a fixed rate, whatever becomes of it.
    /// - Returns: the time from each message's due time to each of its deliveries.
    func paced(perSecond rate: Double, for time: Duration) async throws -> Latencies {
        let clock = ContinuousClock()
        try await loop.submit { [self] in tally.startTiming() }.get()
        let (start, count) = (clock.now, max(1, Int(time.inSeconds * rate)))
        for number in 0..<count {
            let due = start + .seconds(Double(number) / rate)
            if due > clock.now { try await Task.sleep(until: due, tolerance: .zero, clock: clock) }
            loop.execute { [self] in publish(due: due) }
        }
        while try await loop.submit({ [self] in tally.underWay }).get() > 0 {
            try await Task.sleep(for: .milliseconds(10))
        }
        return try await loop.submit { [self] in tally.stopTiming() }.get()
    }

    /// Leaves.
    func end() async {
        try? await loop.submit { [self] in for member in members { member.end() } }.get()
        await connector.shutdownGracefully()
    }
}
