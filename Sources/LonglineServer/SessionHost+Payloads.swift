import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Payloads that are too large for a frame, which the session reads on in one by one.
extension SessionHost {
    func readPayload(_ read: PayloadRead) {
        guard let tenant = identity?.tenant else { return }
        let key = ReadQueue.Key(
            channel: ChannelKey(tenant: tenant, channel: read.channel),
            stretch: .payload(of: read.offset, from: read.from, maximumBytes: read.maximumBytes))
        loop.read(key, for: self, purpose: .payload(read))
    }

    func payloadDone(_ read: PayloadRead, _ result: Result<ByteBuffer?, StoreError>, now: NIODeadline) {
        guard phase != .ended else { return }
        switch result {
        case .success(let bytes): session.payloadRead(read, bytes: bytes, now: now)
        case .failure(let error) where error.code == .overloaded || read.history != nil:
            session.payloadReadFailed(read, now: now)
        case .failure(let error): session.close(Close(error, limits: core.limits), now: now)
        }
        wake()
    }
}
