internal import Glibc
internal import NIOCore
internal import QUICEngine

extension QUICSocketAddress {
    /// The engine's form of a NIO address; nil for a Unix-domain one.
    init?(_ address: SocketAddress) {
        let converted: QUICSocketAddress? = address.withSockAddr { pointer, size in
            QUICSocketAddress(sockaddr: pointer, length: size)
        }
        guard let converted else { return nil }
        self = converted
    }

    /// Whether a datagram from this address can be answered at all. Sending to any other address fails, so such datagrams
    /// are dropped on receipt: port 0, "this network", broadcast, multicast and the reserved class E.
    var isAnswerable: Bool {
        guard port != 0 else { return false }
        return withSockaddr { pointer, length in
            // The host stands behind family and port, in an IPv6 address behind the flow label too.
            let raw = UnsafeRawBufferPointer(start: pointer, count: Int(length))
            return isIPv6 ? raw[8] != 0xFF && raw[8..<24].contains { $0 != 0 } : raw[4] != 0 && raw[4] < 224
        }
    }

    /// The same host with another port.
    func with(port: UInt16) -> QUICSocketAddress {
        var copy = self
        copy.port = port
        return copy
    }
}

extension SocketAddress {
    /// NIO's form of an engine address.
    package init(_ address: QUICSocketAddress) {
        self = address.withSockaddr { pointer, _ in
            let raw = UnsafeRawPointer(pointer)
            if address.isIPv6 {
                return SocketAddress(raw.loadUnaligned(as: sockaddr_in6.self), host: "")
            }
            return SocketAddress(raw.loadUnaligned(as: sockaddr_in.self), host: "")
        }
    }
}

extension QUICInstant {
    /// The loop's clock now.
    static func now() -> QUICInstant { QUICInstant(nanoseconds: NIODeadline.now().uptimeNanoseconds) }
}

extension ECNCodepoint {
    /// The mark of a received datagram.
    init(_ state: NIOExplicitCongestionNotificationState) {
        switch state {
        case .transportNotCapable: self = .notECT
        case .transportCapableFlag0: self = .ect0
        case .transportCapableFlag1: self = .ect1
        case .congestionExperienced: self = .ce
        }
    }
}

extension NIOExplicitCongestionNotificationState {
    /// The mark of a datagram to send.
    init(_ codepoint: ECNCodepoint) {
        switch codepoint {
        case .notECT: self = .transportNotCapable
        case .ect0: self = .transportCapableFlag0
        case .ect1: self = .transportCapableFlag1
        case .ce: self = .congestionExperienced
        }
    }
}
