import LonglineWire
import Testing

@testable import LonglineSession

/// Which lane numbers a peer may use.
@Suite("Inbound lanes")
struct InboundLanesTests {
    private let header = LaneHeader(channel: Fixture.inbox, epoch: 1)

    private func open(_ lanes: inout InboundLanes, _ number: UInt64) -> InboundLanes.Problem? {
        do throws(InboundLanes.Problem) {
            try lanes.opened(LaneID(rawValue: number), header)
            return nil
        } catch { return error }
    }

    private func finish(_ lanes: inout InboundLanes, _ number: UInt64) -> InboundLanes.Problem? {
        do throws(InboundLanes.Problem) {
            _ = try lanes.finished(LaneID(rawValue: number))
            return nil
        } catch { return error }
    }

    @Test("Lanes may appear out of their order, each once")
    func order() {
        var lanes = InboundLanes(limit: 8)
        #expect(open(&lanes, 3) == nil)
        #expect(open(&lanes, 1) == nil)
        #expect(open(&lanes, 1) == .secondHeader)
        #expect(finish(&lanes, 1) == nil)
        #expect(open(&lanes, 1) == .reused)
        #expect(finish(&lanes, 2) == nil)
        #expect(open(&lanes, 2) == .reused)
        #expect(lanes.count == 1)
    }

    @Test("Open lanes and skipped numbers are bounded, however large a number is")
    func bounds() {
        var lanes = InboundLanes(limit: 4)
        #expect(open(&lanes, 5) == .tooMany)
        #expect(open(&lanes, .max) == .tooMany)
        #expect(open(&lanes, 4) == nil)
        #expect(open(&lanes, 5) == .tooMany)
        #expect(finish(&lanes, 4) == nil)
        #expect(open(&lanes, 5) == nil)
    }
}
