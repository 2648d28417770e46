import CDatagramSocket
import Glibc
import QUICEngine
import Testing

/// The C functions that read and write datagrams, on sockets of their own.
@Suite("Datagram sockets", .timeLimit(.minutes(1)))
struct DatagramSocketTests {
    /// A bound UDP socket that tells what a QUIC port wants to know.
    private final class Socket {
        let descriptor: CInt
        let isIPv6: Bool

        init(isIPv6: Bool, joins: Bool = true) throws {
            self.isIPv6 = isIPv6
            descriptor = socket(isIPv6 ? AF_INET6 : AF_INET, CInt(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
            try #require(descriptor >= 0)
            if isIPv6 {
                try set(CInt(IPPROTO_IPV6), IPV6_RECVTCLASS, 1)
                try bind(try #require(QUICSocketAddress(numericHost: "::1", port: 0)))
            } else {
                try set(CInt(IPPROTO_IP), IP_RECVTOS, 1)
                try bind(QUICSocketAddress(ipv4: (127, 0, 0, 1), port: 0))
            }
            // UDP_GRO
            if joins { try set(CInt(IPPROTO_UDP), 104, 1) }
        }

        deinit { close(descriptor) }

        func set(_ level: CInt, _ name: CInt, _ value: CInt) throws {
            var value = value
            try #require(setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<CInt>.size)) == 0)
        }

        private func bind(_ address: QUICSocketAddress) throws {
            try #require(address.withSockaddr { Glibc.bind(descriptor, $0, $1) } == 0)
        }

        /// Where it is bound to.
        var address: (storage: sockaddr_storage, length: socklen_t) {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(descriptor, $0, &length) }
            }
            return (storage, length)
        }

        func send(_ bytes: [UInt8], segment: Int = 0, ecn: UInt8 = 0, to other: Socket) -> CInt {
            var (storage, length) = other.address
            return withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    lld_send(descriptor, bytes, bytes.count, segment, ecn, $0, length)
                }
            }
        }
    }

    private struct Message: Equatable {
        var bytes: [UInt8]
        var segment: Int
        var ecn: UInt8
        var remote: [UInt8]
    }

    /// On loopback what was sent is there.
    private func read(_ reader: OpaquePointer, _ socket: Socket) -> [Message] {
        (0..<lld_read(reader, socket.descriptor)).map { index in
            let message = lld_message_at(reader, index)
            return Message(
                bytes: Array(UnsafeBufferPointer(start: message.bytes, count: message.length)),
                segment: message.segment, ecn: message.ecn,
                remote: Array(UnsafeRawBufferPointer(start: message.remote, count: Int(message.remote_length))))
        }
    }

    private func bytes(of socket: Socket) -> [UInt8] {
        let (storage, length) = socket.address
        return withUnsafeBytes(of: storage) { Array($0.prefix(Int(length))) }
    }

    @Test("bytes, mark, sender and the size of joined datagrams arrive", arguments: [false, true])
    func everythingArrives(isIPv6: Bool) throws {
        let (sender, receiver) = (try Socket(isIPv6: isIPv6), try Socket(isIPv6: isIPv6))
        let reader = try #require(lld_reader_new(4))
        defer { lld_reader_free(reader) }
        let run = (0..<5200).map { UInt8(truncatingIfNeeded: $0) }
        let from = bytes(of: sender)
        // Again and again: what one read leaves behind must not shorten the next.
        for ecn: UInt8 in [0, 1, 2, 3, 0] {
            #expect(sender.send([1, 2, 3], ecn: ecn, to: receiver) == 0)
            #expect(sender.send(run, segment: 1200, ecn: ecn, to: receiver) == 0)
            #expect(sender.send([], ecn: ecn, to: receiver) == 0)
            #expect(
                read(reader, receiver) == [
                    Message(bytes: [1, 2, 3], segment: 0, ecn: ecn, remote: from),
                    Message(bytes: run, segment: 1200, ecn: ecn, remote: from),
                    Message(bytes: [], segment: 0, ecn: ecn, remote: from),
                ])
        }
        #expect(read(reader, receiver) == [])
    }

    @Test("a receiver that doesn't join gets each datagram of a run, as many a call as there is room for")
    func apart() throws {
        let (sender, receiver) = (try Socket(isIPv6: false), try Socket(isIPv6: false, joins: false))
        let reader = try #require(lld_reader_new(3))
        defer { lld_reader_free(reader) }
        #expect(sender.send((0..<45).map { $0 }, segment: 10, ecn: 2, to: receiver) == 0)
        let first = read(reader, receiver)
        #expect(first.map(\.bytes.count) == [10, 10, 10])
        #expect(read(reader, receiver).map(\.bytes) == [Array(30..<40), Array(40..<45)])
        #expect(first.allSatisfy { $0.ecn == 2 && $0.segment == 0 })
    }

    @Test("errors are told by their numbers, and end nothing") func errors() throws {
        let (sender, receiver) = (try Socket(isIPv6: false), try Socket(isIPv6: false))
        let reader = try #require(lld_reader_new(1))
        defer { lld_reader_free(reader) }
        #expect(sender.send([UInt8](repeating: 0, count: 65_508), to: receiver) == EMSGSIZE)
        #expect(sender.send([1], to: try Socket(isIPv6: true)) == EAFNOSUPPORT)
        #expect(lld_read(reader, -1) == 0)
        #expect(sender.send([1], to: receiver) == 0)
        #expect(read(reader, receiver).map(\.bytes) == [[1]])
    }
}
