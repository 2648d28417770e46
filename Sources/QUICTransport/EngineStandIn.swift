internal import Logging
package import NIOCore
package import QUICEngine

/// Takes the engine's place below a ``QUICLoopConnection``, so that what is built on connections can be driven without packets,
/// keys and sockets, a thousand times a second: see `scripts/fuzz`. The calls mean what `QUICEngineConnection`'s do.
package protocol EngineStandIn: AnyObject {
    func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID?
    func write(_ bytes: UnsafeRawBufferPointer, to stream: QUICStreamID, finish: Bool) throws(QUICError) -> Int
    func unsentBytes(_ stream: QUICStreamID) -> Int
    func isHeldBackByPeer(_ stream: QUICStreamID) -> Bool
    func read(
        _ stream: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int
    ) throws(QUICError) -> StreamRead
    func readableBytes(_ stream: QUICStreamID) -> Int
    func isEarly(_ stream: QUICStreamID) -> Bool
    func reset(_ stream: QUICStreamID, code: UInt64)
    func stopSending(_ stream: QUICStreamID, code: UInt64)
    func notifyDelivery(of stream: QUICStreamID) throws(QUICError) -> Bool
    func close(code: UInt64, reason: String)
}

extension EngineStandIn {
    package func isHeldBackByPeer(_ stream: QUICStreamID) -> Bool { false }
    package func notifyDelivery(of stream: QUICStreamID) throws(QUICError) -> Bool { false }

    func write(_ bytes: inout ByteBuffer, to stream: QUICStreamID, finish: Bool) throws(QUICError) -> Int {
        let outcome: Result<Int, QUICError> = bytes.withUnsafeReadableBytes { memory in
            do throws(QUICError) {
                return .success(try write(memory, to: stream, finish: finish))
            } catch {
                return .failure(error)
            }
        }
        let taken = try outcome.get()
        bytes.moveReaderIndex(forwardBy: taken)
        return taken
    }

    func read(
        _ stream: QUICStreamID, maximumBytes: Int
    ) throws(QUICError) -> (bytes: ByteBuffer, finished: Bool) {
        var buffer = ByteBuffer()
        let read = try read(stream) { buffer.writeBytes($0.prefix(max(maximumBytes, 0))) }
        return (buffer, read.finished)
    }
}

extension QUICLoopConnection {
    /// A connection above a stand-in, which hands it its events.
    package static func standing(
        on standIn: any EngineStandIn, isServer: Bool, eventLoop: any EventLoop
    ) throws -> QUICLoopConnection {
        let driver = try LoopDriver(
            eventLoop: eventLoop, configuration: EndpointConfiguration(), socketOptions: QUICSocketOptions(),
            logger: Logger(label: "longline.quic"), metrics: nil, accept: nil)
        return QUICLoopConnection(standIn: standIn, isServer: isServer, driver: driver)
    }

    /// Names who gets the events. The connection keeps it until the last one.
    package func serve(by handler: any QUICConnectionHandler) { self.handler = handler }

    /// Delivers events as those of one tick.
    package func deliver(_ events: [QUICConnectionEvent]) {
        for event in events { dispatch(event) }
        endBatch()
    }
}
