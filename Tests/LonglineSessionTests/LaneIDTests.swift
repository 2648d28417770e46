import LonglineSession
import Testing

@Test("Lane 0 is control and the lowest")
func controlLane() {
    #expect(LaneID.control.rawValue == 0)
    #expect(LaneID.control < LaneID(rawValue: 1))
}
