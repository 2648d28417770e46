internal import Glibc
package import NIOCore

/// The system's resolver.
package enum SystemResolver {
    /// What is to be spoken with the host.
    package enum Transport: Sendable {
        case tcp
        case udp
    }

    /// What the system's resolver says of a host, in its order, with port 0. Blocks.
    package static func addresses(
        of host: String, over transport: Transport
    ) throws(NameLookupError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        switch transport {
        case .tcp:
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            hints.ai_protocol = Int32(IPPROTO_TCP)
        case .udp:
            hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
            hints.ai_protocol = Int32(IPPROTO_UDP)
        }
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        guard status == 0 else { throw error(of: status) }
        var found: [SocketAddress] = []
        var next = list
        while let entry = next {
            if let pointer = entry.pointee.ai_addr {
                let raw = UnsafeRawPointer(pointer)
                switch entry.pointee.ai_family {
                case AF_INET: found.append(SocketAddress(raw.loadUnaligned(as: sockaddr_in.self), host: host))
                case AF_INET6: found.append(SocketAddress(raw.loadUnaligned(as: sockaddr_in6.self), host: host))
                default: break
                }
            }
            next = entry.pointee.ai_next
        }
        return found
    }

    /// What a status of `getaddrinfo` says about the name.
    package static func error(of status: CInt) -> NameLookupError {
        let text = String(cString: gai_strerror(status))
        return [EAI_AGAIN, EAI_FAIL, EAI_SYSTEM].contains(status) ? .unavailable(text) : .failed(text)
    }
}
