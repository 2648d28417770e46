internal import HostNames
public import NIOCore
internal import NIOPosix
internal import QUICEngine

/// Which local addresses exist and which of them leads to a peer.
public enum LocalAddresses {
    /// The concrete addresses an address stands for: itself, or every address of the machine of its family if it is a
    /// wildcard. A datagram's source address can't be chosen on a wildcard socket, so nothing is ever bound to one.
    /// Link-local IPv6 addresses are left out: peers beyond the link can't use them.
    /// - Throws: ``QUICTransportError`` with ``QUICTransportError/Code/bindFailed``.
    public static func expand(_ address: SocketAddress) throws -> [SocketAddress] {
        guard address.isWildcard else { return [address] }
        let devices: [NIONetworkDevice]
        do {
            devices = try System.enumerateDevices()
        } catch {
            throw QUICTransportError(
                .bindFailed, "the local addresses could not be listed", cause: "\(error)",
                advice: "Name concrete addresses to listen on.")
        }
        var found: [SocketAddress] = []
        for device in devices {
            guard var candidate = device.address, candidate.protocol == address.protocol, !candidate.isLinkLocal6 else {
                continue
            }
            candidate.port = address.port
            if !found.contains(candidate) { found.append(candidate) }
        }
        guard !found.isEmpty else {
            throw QUICTransportError(
                .bindFailed, "no interface has an address of the wanted family",
                advice: "Name concrete addresses to listen on.")
        }
        return found
    }

    /// The address that the machine would send from to reach `remote` now, with port 0. Asks the routing table by
    /// connecting a socket that never sends.
    /// - Throws: ``QUICTransportError`` with ``QUICTransportError/Code/unreachable``.
    public static func toward(_ remote: SocketAddress) throws -> SocketAddress {
        guard QUICSocketAddress(remote) != nil else {
            throw QUICTransportError(
                .unreachable, "the remote address is neither IPv4 nor IPv6", advice: "Use an IP address.")
        }
        do {
            return try SystemRoutes.source(toward: remote)
        } catch {
            throw QUICTransportError(
                .unreachable, "there is no route to \(remote)", cause: SystemError.words(error),
                advice: "Check the network and try again.")
        }
    }
}

extension SocketAddress {
    /// Whether this is 0.0.0.0 or ::.
    var isWildcard: Bool { hostBytes.map { bytes in bytes.allSatisfy { $0 == 0 } } ?? false }

    /// Whether this is an address of fe80::/10.
    var isLinkLocal6: Bool { hostBytes.map { $0.count == 16 && $0[0] == 0xFE && $0[1] & 0xC0 == 0x80 } ?? false }

    /// The host in network order, 4 or 16 bytes; nil for a Unix-domain address.
    private var hostBytes: [UInt8]? {
        let offset: Int
        let count: Int
        switch self {
        case .v4: (offset, count) = (4, 4)
        case .v6: (offset, count) = (8, 16)
        case .unixDomainSocket: return nil
        }
        return withSockAddr { pointer, size in
            Array(UnsafeRawBufferPointer(start: pointer, count: size)[offset..<offset + count])
        }
    }
}
