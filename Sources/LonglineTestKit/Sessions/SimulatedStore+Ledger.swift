import LonglineStore
import LonglineWire

/// What a ledger may have forgotten.
extension SimulatedStore {
    /// A ledger that does not know any more what became of a publish has forgotten it: it remembers so many of an outbox in a log, and
    /// forgets the lowest IDs first.
    func checkForgotten(_ request: AppendRequest, _ outcome: AppendOutcome) {
        guard case .refused(let refused) = outcome, refused.code == .outcomeUnknown else { return }
        let entries = truth.logs[request.channel]?.entries ?? []
        let later = entries.count { isInLedger($0, of: request) && $0.publishID > refused.id }
        guard later < Self.remembered else { return }
        violation("\(request.channel): publish \(refused.id) is forgotten, and \(later) came behind it")
    }

    private func isInLedger(_ entry: Entry, of request: AppendRequest) -> Bool {
        entry.origin == nil && entry.producer == request.producer && entry.sender == request.device.user
            && entry.device == request.device.device
    }
}
