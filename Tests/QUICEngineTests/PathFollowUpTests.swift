import LonglineTestKit
import Testing

@testable import QUICEngine

/// What a client says behind its server's question whether it is where it seems to be.
@Suite struct PathFollowUpTests {
    @Test("a client speaks up two seconds behind a challenge, ever more rarely where each leads to another")
    func aClientSpeaksUpBehindAChallenge() {
        func at(_ milliseconds: UInt64) -> QUICInstant { QUICInstant(nanoseconds: milliseconds * 1_000_000) }
        var followUp = PathFollowUp()
        followUp.challenged(now: at(1_000), probeTimeout: 100_000_000)
        followUp.challenged(now: at(2_000), probeTimeout: 100_000_000)
        #expect(followUp.due == at(4_000))
        #expect(!followUp.isTime(now: at(3_000)) && followUp.isTime(now: at(4_000)) && !followUp.isTime(now: at(5_000)))
        // The server answers with another challenge each time.
        followUp.challenged(now: at(4_100), probeTimeout: 100_000_000)
        #expect(followUp.due == at(8_100) && followUp.isTime(now: at(8_100)))
        followUp.challenged(now: at(8_200), probeTimeout: 100_000_000)
        #expect(followUp.due == at(16_200) && followUp.isTime(now: at(16_200)))
        // One that has nothing to do with it is followed up soon; on a slow path not as soon.
        followUp.challenged(now: at(60_000), probeTimeout: 1_000_000_000)
        #expect(followUp.due == at(64_000))
    }

    @Test("a server that challenges a client's new path hears it once more")
    func aServerThatChallengesHearsItsClientOnceMore() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.setNAT(
            EngineWorld.clientAddress, appearsAs: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1111))
        client.ping(now: world.network.now)
        world.simulation.run(for: .milliseconds(1_500))
        let before = client.statistics(now: world.network.now).packetsSent
        world.simulation.run(for: .seconds(1))
        #expect(client.statistics(now: world.network.now).packetsSent > before)
    }
}
