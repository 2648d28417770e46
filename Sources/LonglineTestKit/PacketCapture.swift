import Foundation
public import NIOCore
import Synchronization

/// Writes datagrams into a file that Wireshark reads (pcap, raw IPv4 packets). It needs no privilege: the relay that
/// passes the datagrams hands them in.
public final class PacketCapture: Sendable {
    private static let magic: UInt32 = 0xa1b2_c3d4
    /// LINKTYPE_RAW: each packet begins with its IP header.
    private static let linkType: UInt32 = 101

    private let handle: Mutex<FileHandle>

    /// Creates the file.
    public init(path: String) throws {
        guard FileManager.default.createFile(atPath: path, contents: nil),
            let handle = FileHandle(forWritingAtPath: path)
        else {
            throw CocoaError(.fileWriteUnknown)
        }
        var header = ByteBuffer()
        header.writeInteger(Self.magic)
        header.writeMultipleIntegers(UInt16(2), UInt16(4), UInt32(0), UInt32(0), UInt32(65535), Self.linkType)
        try handle.write(contentsOf: Data(header.readableBytesView))
        self.handle = Mutex(handle)
    }

    /// Writes a datagram, as of now; one of other than IPv4 is left out.
    public func record(_ payload: ByteBuffer, from source: SocketAddress, to destination: SocketAddress) {
        guard let from = source.ipAddress?.octets, let to = destination.ipAddress?.octets else { return }
        var packet = ByteBuffer()
        let length = UInt16(clamping: 28 + payload.readableBytes)
        // Version and header length, service, total length; identification, fragmentation; time to live, UDP, checksum.
        packet.writeMultipleIntegers(UInt8(0x45), UInt8(0), length, UInt32(0), UInt8(64), UInt8(17), UInt16(0))
        packet.writeBytes(from)
        packet.writeBytes(to)
        // A checksum of 0 means that there is none.
        packet.writeMultipleIntegers(
            UInt16(clamping: source.port ?? 0), UInt16(clamping: destination.port ?? 0), length - 20, UInt16(0))
        packet.writeImmutableBuffer(payload)
        let now = Date().timeIntervalSince1970
        var record = ByteBuffer()
        record.writeMultipleIntegers(
            UInt32(now), UInt32((now - now.rounded(.down)) * 1_000_000), UInt32(packet.readableBytes),
            UInt32(packet.readableBytes))
        record.writeBuffer(&packet)
        handle.withLock { try? $0.write(contentsOf: Data(record.readableBytesView)) }
    }
}

extension String {
    /// The four bytes of an IPv4 address.
    fileprivate var octets: [UInt8]? {
        let parts = split(separator: ".").compactMap { UInt8($0) }
        return parts.count == 4 ? parts : nil
    }
}
