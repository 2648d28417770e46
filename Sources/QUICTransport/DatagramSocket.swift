internal import CDatagramSocket
internal import Glibc
internal import NIOCore
internal import QUICEngine

/// A datagram channel's socket, to be read and written directly: the channel's own way costs several times what the system
/// call does. The channel still says when something can be read, waits where the socket's buffer is full, and dies of
/// errors. Used on its loop only.
struct DatagramSocket {
    private let channel: any Channel
    private let descriptor: CInt

    /// What became of a message.
    enum Outcome {
        case sent
        /// The socket's buffer is full.
        case full
        /// The error number.
        case failed(CInt)
        /// The channel has closed it.
        case closed
    }

    init(channel: any Channel, descriptor: CInt) {
        self.channel = channel
        self.descriptor = descriptor
    }

    /// The channel is inactive from the moment on in which it closes the socket. Its number may be another file's after that.
    fileprivate var openDescriptor: CInt? { channel.isActive ? descriptor : nil }

    /// Sends one message.
    /// - Parameter segmentSize: what the kernel makes datagrams of; 0: the message is one.
    func send(
        _ bytes: UnsafeRawBufferPointer, segmentSize: Int, ecn: ECNCodepoint, to remote: QUICSocketAddress
    ) -> Outcome {
        guard let descriptor = openDescriptor else { return .closed }
        let error = remote.withSockaddr { address, length in
            lld_send(
                descriptor, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count, segmentSize,
                ecn.rawValue, address, length)
        }
        switch error {
        case 0: return .sent
        case EAGAIN: return .full
        default: return .failed(error)
        }
    }
}

/// The memory into which the sockets of one loop are read.
final class DatagramReader {
    private let reader: OpaquePointer

    /// Room for so many messages, each of which can hold as many datagrams as the kernel joins; nil: no memory.
    init?(messages: Int) {
        guard let reader = lld_reader_new(messages) else { return nil }
        self.reader = reader
    }

    deinit { lld_reader_free(reader) }

    /// Takes the messages that wait in a socket, as far as there is room, in one system call.
    /// - Parameter body: gets the bytes, which are gone after the call, the size of the datagrams that the kernel joined, or 0,
    ///   the mark and the sender.
    func read(
        _ socket: DatagramSocket,
        _ body: (UnsafeRawBufferPointer, _ segmentSize: Int, ECNCodepoint, QUICSocketAddress) -> Void
    ) {
        guard let descriptor = socket.openDescriptor else { return }
        for index in 0..<lld_read(reader, descriptor) {
            let message = lld_message_at(reader, index)
            guard let address = message.remote,
                let remote = QUICSocketAddress(sockaddr: address, length: Int(message.remote_length))
            else { continue }
            body(
                UnsafeRawBufferPointer(start: message.bytes, count: message.length), message.segment,
                ECNCodepoint(rawValue: message.ecn) ?? .notECT, remote)
        }
    }
}
