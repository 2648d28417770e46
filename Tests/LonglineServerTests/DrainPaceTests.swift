import Testing

@testable import LonglineServer

@Suite struct DrainPaceTests {
    @Test("clients are moved at the rate that was asked for")
    func pace() {
        var pace = DrainPace()
        #expect(pace.due(after: .zero, rate: 10) == 0)
        #expect(pace.due(after: .milliseconds(100), rate: 10) == 1)
        pace.ended(1)
        #expect(pace.due(after: .milliseconds(150), rate: 10) == 0)
        #expect(pace.due(after: .milliseconds(400), rate: 10) == 3)
        pace.ended(3)
        // A pause is not made up for at once.
        #expect(pace.due(after: .seconds(100), rate: 10) == 10)
    }
}
