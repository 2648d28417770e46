internal import NIOCore
package import QUICEngine

// What a check of the whole looks at from outside: see scripts/fuzz.

extension Session {
    /// Bytes of sections that aren't whole or wait for table entries, and of what waits to leave on our own streams. Bodies aren't
    /// among them: they stay in the QUIC streams until somebody reads them.
    var heldBytes: Int {
        var sum = outbound.control.readableBytes + outbound.encoder.readableBytes + outbound.decoder.readableBytes
        for exchange in exchanges.values { sum += exchange.block.count + (exchange.blocked?.bytes.count ?? 0) }
        return sum
    }
}

extension HTTP3ServerSession {
    /// Bytes that are held of what the client sent, and for it. On the loop.
    package var heldBytes: Int { session?.heldBytes ?? 0 }
}

extension HTTP3ClientConnection {
    /// Bytes that are held of what the server sent, and for it. On the loop; 0 elsewhere.
    package var heldBytes: Int { session.here?.heldBytes ?? 0 }
}

extension HTTP3Body {
    /// The stream that it comes on. On the loop; nil elsewhere.
    package var streamID: QUICStreamID? { exchange.here?.id }
}
