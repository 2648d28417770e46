import LonglineWire
import Testing

@testable import LonglineSession

/// A server holds one of these for each channel of each session: a hundred thousand sessions in ten rooms are a million.
@Suite("Memory of a membership")
struct MembershipMemoryTests {
    @Test("A channel that is quiet takes what it is, and no buffers")
    func quietChannel() {
        #expect(MemoryLayout<ServerChannel>.stride <= 320, "\(MemoryLayout<ServerChannel>.stride)")
        #expect(MemoryLayout<ChannelSender>.stride <= 176, "\(MemoryLayout<ChannelSender>.stride)")
    }
}
