import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@testable import HTTP3

/// A peer that writes HTTP/3 byte by byte, and breaks whatever rule a test wants broken.
final class RawPeer: Sendable {
    let connection: QUICConnection
    /// A stream that is let go of unfinished is reset.
    private let held = Mutex<[QUICStream]>([])

    init(_ connection: QUICConnection) { self.connection = connection }

    /// Keeps a stream open as long as the peer.
    func hold(_ stream: QUICStream) { held.withLock { $0.append(stream) } }

    /// An empty SETTINGS frame.
    static let settings: [UInt8] = [0x4, 0]
    static let get: [(String, String)] = [
        (":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/"),
    ]

    /// A unidirectional stream with a type and bytes behind it.
    @discardableResult
    func open(_ type: UInt64, _ bytes: [UInt8] = [], finish: Bool = false) async throws -> QUICStream {
        let stream = try await connection.openStream(bidirectional: false)
        var buffer = ByteBuffer()
        buffer.writeVarint(type)
        buffer.writeBytes(bytes)
        try await stream.write(buffer)
        hold(stream)
        if finish { try await stream.finish() }
        return stream
    }

    /// A control stream with its SETTINGS, and frames behind them.
    @discardableResult
    func openControl(_ more: [UInt8] = []) async throws -> QUICStream {
        try await open(StreamType.control, Self.settings + more)
    }

    /// A request stream with these bytes.
    func send(_ bytes: [UInt8], finish: Bool = true) async throws -> QUICStream {
        let stream = try await connection.openStream()
        hold(stream)
        do {
            try await stream.write(ByteBuffer(bytes: bytes))
            if finish { try await stream.finish() }
        } catch let error as QUICTransportError
            where [.stopSending, .connectionClosed, .streamState].contains(error.code)
        {
            // What was sent may be answered, or refused, before its end is: the stream or the connection says how.
        }
        return stream
    }

    /// A request that is answered: the connection goes on.
    func expectAlive(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let stream = try await send(Self.headers(Self.get))
        let answer = try await stream.collect()
        #expect(answer.first == UInt8(FrameType.headers), sourceLocation: sourceLocation)
    }

    /// Waits for the connection's end and checks its code.
    func expectClose(
        _ code: HTTP3ErrorCode, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let reason = try await connection.closed()
        guard case .peerApplication(let number, _) = reason else {
            Issue.record("ended by \(reason)", sourceLocation: sourceLocation)
            return
        }
        #expect(HTTP3ErrorCode(rawValue: number) == code, sourceLocation: sourceLocation)
    }

    // MARK: Bytes

    static func frame(_ type: UInt64, _ payload: [UInt8] = []) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.writeFrameHeader(type, length: payload.count)
        buffer.writeBytes(payload)
        return Array(buffer.readableBytesView)
    }

    /// A HEADERS frame whose lines are all literals.
    static func headers(_ fields: [(String, String)]) -> [UInt8] { frame(FrameType.headers, section(fields)) }

    static func data(_ text: String) -> [UInt8] { frame(FrameType.data, Array(text.utf8)) }

    /// A field section without the dynamic table (RFC 9204 section 4.5).
    static func section(_ fields: [(String, String)]) -> [UInt8] {
        var bytes: [UInt8] = [0, 0]
        for (name, value) in fields {
            bytes += integer(name.utf8.count, prefix: 3, flags: 0x20) + Array(name.utf8)
            bytes += integer(value.utf8.count, prefix: 7, flags: 0) + Array(value.utf8)
        }
        return bytes
    }

    /// An integer of QPACK (RFC 7541 section 5.1).
    static func integer(_ value: Int, prefix: Int, flags: UInt8) -> [UInt8] {
        let largest = 1 << prefix - 1
        guard value >= largest else { return [flags | UInt8(value)] }
        var bytes = [flags | UInt8(largest)]
        var rest = value - largest
        while rest >= 128 {
            bytes.append(UInt8(rest & 127) | 128)
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    static func varint(_ value: UInt64) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.writeVarint(value)
        return Array(buffer.readableBytesView)
    }
}

extension QUICStream {
    /// Everything up to the end.
    func collect() async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in self { bytes.append(contentsOf: piece.readableBytesView) }
        return bytes
    }

    /// Reads until the peer abandons the stream, and checks the code.
    func expectReset(_ code: HTTP3ErrorCode, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        do {
            while try await read() != nil {}
            Issue.record("the stream ended well", sourceLocation: sourceLocation)
        } catch let error as QUICTransportError where error.code == .streamReset {
            #expect(
                HTTP3ErrorCode(rawValue: error.applicationCode ?? 0) == code, sourceLocation: sourceLocation)
        }
    }
}
