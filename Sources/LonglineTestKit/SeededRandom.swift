/// A reproducible random source: the same seed yields the same sequence on every platform.
///
/// SplitMix64. It is for tests and simulations only; it is not cryptographically secure. Print the seed of a failing
/// test, and the failure can be replayed.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    /// The seed the sequence was started from.
    public let seed: UInt64
    private var state: UInt64

    /// Starts a sequence.
    /// - Parameter seed: any value; equal seeds yield equal sequences.
    public init(seed: UInt64) {
        self.seed = seed
        self.state = seed
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Whether an event of the given probability happens this time.
    /// - Parameter probability: from 0 (never) to 1 (always).
    public mutating func happens(_ probability: Double) -> Bool {
        Double(next() >> 11) * 0x1p-53 < probability
    }
}
