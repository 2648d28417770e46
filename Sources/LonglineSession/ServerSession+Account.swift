public import LonglineWire
public import NIOCore

/// Erasing the account, which only a device whose credential names that right can ask for.
extension ServerSession {
    mutating func processErasure(now: NIODeadline) {
        guard let identity, identity.mayErase else {
            return refuse(ErasureRefused(code: .forbidden))
        }
        // Said once or twice, it is one erasure.
        guard !isErasing else { return }
        isErasing = true
        actions.append(.eraseAccount)
    }

    /// The host could not begin what ``ServerAction/eraseAccount`` asked for: nothing was erased.
    public mutating func erasureRefused(_ refusal: ErasureRefused, now: NIODeadline) {
        guard isErasing else { return }
        isErasing = false
        refuse(refusal)
    }

    private mutating func refuse(_ refusal: ErasureRefused) {
        if !isClosed { actions.append(.send(.erasureRefused(refusal), lane: .control)) }
    }
}
