internal import NIOCore
internal import QUICEngine

/// The loop's side of a ``QUICStream``.
///
/// ```
///  reading:  open --end read--> over        writing:  open --finish--> over
///              \--reset, stopSending--> over            \--reset, peer's STOP_SENDING--> over
/// ```
final class AsyncStreamState {
    let id: QUICStreamID
    private var reader: Waiter<ByteBuffer?>?
    private var writer: (bytes: ByteBuffer, waiter: Waiter<Void>)?
    /// Why there is nothing to read any more; `.success` after the end.
    private var readEnd: Result<Void, QUICTransportError>?
    private var isClosed = false
    /// Why nothing can be written any more.
    private var writeEnd: QUICTransportError?

    init(id: QUICStreamID, isServer: Bool) {
        self.id = id
        guard !id.isBidirectional else { return }
        let isOurs = id.isClientInitiated != isServer
        if isOurs { readEnd = .failure(Self.wrongDirection) } else { writeEnd = Self.wrongDirection }
    }

    // MARK: Reading

    func read(_ waiter: Waiter<ByteBuffer?>, _ connection: QUICLoopConnection) {
        guard reader == nil else { return waiter.finish(.failure(Self.busy("reads from"))) }
        reader = waiter
        readable(connection)
    }

    /// What is there to be read; nil: nothing, and the end wasn't seen yet either.
    func readAtOnce(_ connection: QUICLoopConnection) -> Result<ByteBuffer?, any Error>? {
        guard reader == nil else { return .failure(Self.busy("reads from")) }
        if let readEnd { return readEnd.map { nil }.mapError { $0 } }
        return connection.readableBytes(id) > 0 ? resultOfRead(connection) : nil
    }

    /// Serves a waiting reader; bytes that nobody asked for stay in the engine, and the peer's window shut.
    func readable(_ connection: QUICLoopConnection) {
        guard let waiter = reader else { return }
        if let readEnd {
            reader = nil
            return waiter.finish(readEnd.map { nil }.mapError { $0 })
        }
        do throws(QUICError) {
            // Something has to be there before the waiter is claimed: a claimed one must be resumed.
            let available = connection.readableBytes(id)
            if available > 0 {
                guard waiter.claim() else {
                    reader = nil
                    return
                }
                reader = nil
                let result = resultOfRead(connection)
                waiter.resume(with: result)
            } else if try connection.read(id, maximumBytes: 0).finished {
                readEnd = .success(())
                reader = nil
                waiter.finish(.success(nil))
            }
        } catch {
            reader = nil
            waiter.finish(.failure(QUICTransportError(error)))
        }
    }

    private func resultOfRead(_ connection: QUICLoopConnection) -> Result<ByteBuffer?, any Error> {
        do throws(QUICError) {
            let read = try connection.read(id, maximumBytes: AsyncConnectionState.readSize)
            if read.finished { readEnd = .success(()) }
            return .success(read.bytes)
        } catch {
            return .failure(QUICTransportError(error))
        }
    }

    func wasReset(code: UInt64) {
        endReading(
            QUICTransportError(
                .streamReset, "the peer abandoned the stream", cause: "application code \(code)",
                advice: "What was read before may be incomplete.", applicationCode: code))
    }

    func stopSending(code: UInt64, _ connection: QUICLoopConnection) {
        guard readEnd == nil else { return }
        connection.stopSending(id, code: code)
        endReading(QUICTransportError(.streamState, "reading was stopped here", advice: "Read before stopping."))
    }

    private func endReading(_ error: QUICTransportError) {
        guard readEnd == nil else { return }
        readEnd = .failure(error)
        reader?.finish(.failure(error))
        reader = nil
    }

    // MARK: Writing

    func write(_ bytes: ByteBuffer, _ waiter: Waiter<Void>, _ connection: QUICLoopConnection) {
        if let writeEnd { return waiter.finish(.failure(writeEnd)) }
        guard writer == nil else { return waiter.finish(.failure(Self.busy("writes to"))) }
        writer = (bytes, waiter)
        writable(connection)
    }

    /// - Returns: whether all was taken; false: nothing was, and whoever waits learns why.
    func writeAtOnce(_ bytes: ByteBuffer, _ connection: QUICLoopConnection) -> Bool {
        guard writer == nil, writeEnd == nil, connection.writableBytes(id) >= bytes.readableBytes else { return false }
        var rest = bytes
        return (try? connection.write(&rest, to: id)) != nil
    }

    func writable(_ connection: QUICLoopConnection) {
        guard var pending = writer else { return }
        writer = nil
        do throws(QUICError) {
            try connection.write(&pending.bytes, to: id)
            if pending.bytes.readableBytes == 0 {
                pending.waiter.finish(.success(()))
            } else {
                writer = pending
            }
        } catch {
            // The engine knows of the peer's STOP_SENDING before its event, with the code, has come here.
            if error.code == .streamState, !isClosed {
                writer = pending
            } else {
                pending.waiter.finish(.failure(QUICTransportError(error)))
            }
        }
    }

    /// Both directions are done for the engine; what is unread can still be read.
    func closed(_ connection: QUICLoopConnection) {
        isClosed = true
        readable(connection)
        if writer != nil { endWriting(Self.over) }
    }

    func finish(_ connection: QUICLoopConnection) throws {
        if let writeEnd { throw writeEnd }
        guard writer == nil else { throw Self.busy("writes to") }
        writeEnd = Self.finished
        var nothing = ByteBuffer()
        do throws(QUICError) {
            try connection.write(&nothing, to: id, finish: true)
        } catch {
            throw QUICTransportError(error)
        }
    }

    func reset(code: UInt64, _ connection: QUICLoopConnection) {
        let wasFinished = writeEnd == Self.finished
        guard writeEnd == nil || wasFinished else { return }
        connection.reset(id, code: code)
        endWriting(QUICTransportError(.streamState, "the stream was reset here", advice: "Open another."))
    }

    /// The task that wrote was cancelled with bytes half written: nobody could go on from there.
    func cancelWrite(code: UInt64, _ connection: QUICLoopConnection) {
        guard writer != nil else { return }
        writer = nil
        reset(code: code, connection)
    }

    func wasStopped(code: UInt64) {
        endWriting(
            QUICTransportError(
                .stopSending, "the peer wants nothing more on this stream", cause: "application code \(code)",
                advice: "Stop writing.", applicationCode: code))
    }

    private func endWriting(_ error: QUICTransportError) {
        writeEnd = error
        writer?.waiter.finish(.failure(error))
        writer = nil
    }

    // MARK: The end

    func fail(_ error: QUICTransportError) {
        endReading(error)
        if writeEnd == nil { endWriting(error) }
    }

    func abandon(_ connection: QUICLoopConnection) {
        if writeEnd == nil { connection.reset(id, code: 0) }
        if readEnd == nil { connection.stopSending(id, code: 0) }
    }

    private static let finished = QUICTransportError(
        .streamState, "the stream was finished", advice: "Write before finishing.")
    private static let over = QUICTransportError(.streamState, "the stream is over", advice: "Open another.")
    private static let wrongDirection = QUICTransportError(
        .streamState, "a unidirectional stream is used against its direction", advice: "Open a bidirectional stream.")

    private static func busy(_ what: String) -> QUICTransportError {
        QUICTransportError(
            .concurrentUse, "another task \(what) the stream", advice: "Use one reader and one writer a stream.")
    }
}
