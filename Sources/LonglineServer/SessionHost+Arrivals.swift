import LonglineSession
import LonglineStore
import LonglineWire

/// What a device confirmed, as only its next CONNECT said: the acknowledgement was lost with its link.
struct LateConfirmation: Sendable {
    /// The record's place in the user's inbox before.
    var after: Offset
    var upTo: Position
}

extension SessionHost {
    /// Most messages whose senders are told of them so. Who wrote before those learns it from the list, or with a later one.
    private static let maximumLate = 256

    /// Tells the senders of what arrived, as an acknowledgement on the link would have.
    func tellSenders(of late: LateConfirmation) {
        guard let device else { return }
        let core = core
        let inbox = ChannelKey(tenant: device.tenant, channel: .user(device.user))
        let range = LogRange(
            after: late.after, upTo: late.upTo.offset, direction: .older, maximumEntries: Self.maximumLate,
            maximumBytes: core.sessionConfiguration.readBytes)
        offLoop {
            await Result { () async throws(StoreError) in
                try await core.store.page(inbox, range, now: core.time())
            }
        } then: { host, result in
            guard host.phase == .established, case .success(let page) = result, page.epoch == late.upTo.epoch else {
                // Nothing hangs on it: the list says the same.
                if case .failure(let error) = result { core.note(error, in: "what arrived") }
                return
            }
            var last: [UserID: Position] = [:]
            for case .entry(let entry) in page.items where entry.kind == .message {
                guard let origin = entry.origin, last[entry.sender]?.offset ?? 0 < origin.offset else { continue }
                last[entry.sender] = origin
            }
            for (sender, origin) in last { host.delivered(sender: sender, origin: origin) }
        }
    }
}
