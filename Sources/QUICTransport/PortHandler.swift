internal import NIOCore

/// The only handler in a port's channel.
final class PortHandler: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    /// nil before the port took it and after it was let go.
    weak var port: UDPPort?
    /// What closed the channel, as far as it is known.
    var lastError: (any Error)?
    /// That was an error of a write.
    private var metWriteError = false
    /// The channel's socket; nil: it can't be used directly.
    var socket: DatagramSocket?
    private var context: ChannelHandlerContext?

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        socket = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        port?.received(unwrapInboundIn(data))
    }

    func channelReadComplete(context: ChannelHandlerContext) { port?.readComplete() }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        port?.writabilityChanged(context.channel.isWritable)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { lastError = error }

    func channelInactive(context: ChannelHandlerContext) {
        port?.died(self, error: lastError)
    }

    func write(_ envelope: AddressedEnvelope<ByteBuffer>, promise: EventLoopPromise<Void>?) {
        guard let context else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        context.write(wrapOutboundOut(envelope), promise: promise)
    }

    func flush() { context?.flush() }

    /// A write failed, and the channel closes.
    /// - Returns: whether it was this write that met the error. The messages behind it fail with the same one; and so do all where
    ///   reading or polling met it, of which the channel tells first.
    func isMet(_ failure: IOError) -> Bool {
        guard !metWriteError, (lastError as? IOError)?.errnoCode != failure.errnoCode else { return false }
        metWriteError = true
        lastError = failure
        return true
    }

    func breakChannel() { context?.close(promise: nil) }

    /// Closes the channel without telling the port.
    func detach() {
        port = nil
        context?.close(promise: nil)
    }
}
