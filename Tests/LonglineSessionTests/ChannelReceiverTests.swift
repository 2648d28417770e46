import LonglineWire
import Testing

@testable import LonglineSession

@Suite("What a device received of a channel")
struct ChannelReceiverTests {
    @Test("Of a log of which nothing came nothing is lost when another one takes its place")
    func gapOfNothing() {
        var receiver = ChannelReceiver(confirmed: nil)
        receiver.opened(epoch: 1)
        let start = Position(epoch: 1, offset: 0)
        let nothing = receiver.receive(Gap(from: start, first: 0), epoch: 2)
        #expect(nothing == nil)
        // What is gone of the new log is told.
        let told = receiver.receive(Gap(from: start, first: 5), epoch: 2)
        #expect(told == Gap(from: Position(epoch: 2, offset: 0), first: 5))
        let next = Deliver(entry: Fixture.entry(6, after: 5), redelivered: false)
        let result = receiver.receive(next, epoch: 2)
        #expect(result == .accept)
    }

    @Test("Of a log of which something came the loss is told, from where the device stood")
    func gapOfSomething() {
        var receiver = ChannelReceiver(confirmed: Position(epoch: 1, offset: 4))
        let gap = Gap(from: Position(epoch: 1, offset: 4), first: 0)
        let told = receiver.receive(gap, epoch: 2)
        #expect(told == gap)
    }

    @Test("A log that ends before what came takes the device back to its end, once")
    func logEnds() {
        func place(_ offset: Offset) -> Position { Position(epoch: 1, offset: offset) }
        for (confirmed, cursor) in [(Offset(2), Offset(2)), (8, 5)] {
            var receiver = ChannelReceiver(confirmed: place(confirmed))
            for offset in confirmed + 1...9 {
                _ = receiver.receive(
                    Deliver(entry: Fixture.entry(offset, after: offset - 1), redelivered: false), epoch: 1)
            }
            let nothing = receiver.logEnds(at: place(9))
            #expect(nothing == nil)
            let told = receiver.logEnds(at: place(5))
            #expect(told == Gap(from: place(9), first: 5))
            #expect(receiver.last == place(5) && receiver.confirmed == place(cursor))
            let again = receiver.logEnds(at: place(5))
            #expect(again == nil)
            let next = receiver.receive(
                Deliver(entry: Fixture.entry(6, after: 5), redelivered: false), epoch: 1)
            #expect(next == .accept)
        }
    }
}
