import NIOCore

/// How long a shutdown waits, all in all: for links that close by themselves, then until the closes of the others have left.
struct ShutdownPatience {
    /// Links have so long to close: all but a tenth.
    let forLinks: NIODeadline
    let forAll: NIODeadline

    init(_ time: TimeAmount, now: NIODeadline) {
        forAll = now + time
        forLinks = forAll - .nanoseconds(time.nanoseconds / 10)
    }

    /// What is left of it; nothing rather than less.
    func left(now: NIODeadline) -> TimeAmount { max(.zero, forAll - now) }
}
