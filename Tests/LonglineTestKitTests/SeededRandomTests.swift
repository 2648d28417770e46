import LonglineTestKit
import Testing

/// Failures are replayed by their seed, so a seed must mean the same sequence for ever and everywhere.
@Suite struct SeededRandomTests {
    @Test func followsThePublishedSequenceOfSplitMix64() {
        var random = SeededRandom(seed: 1_234_567)
        let first = (0..<5).map { _ in random.next() }
        #expect(
            first == [
                6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
                4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
            ])
    }

    @Test func certainEventsHappenAndImpossibleOnesDoNot() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<1_000 {
            let certain = random.happens(1)
            let impossible = random.happens(0)
            #expect(certain && !impossible)
        }
    }
}
