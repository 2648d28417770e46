import Glibc
import NIOCore

/// Names the network that a local address belongs to, so that it is known again.
///
/// The name is made of the address's network and the gateway that leads out of it. Two networks can have the same (many
/// homes use `192.168.1.0/24`); what was learned in the one is then a wrong guess in the other, which costs one beat.
enum NetworkName {
    /// One address of an interface.
    struct Interface: Hashable {
        var device: String
        var address: String
        /// nil where the system doesn't tell.
        var netmask: String?
    }

    /// The network's name, from the interfaces and routes of this machine; nil without an IP address.
    static func of(_ local: SocketAddress?) -> String? {
        guard let address = local?.ipAddress else { return nil }
        let devices = (try? System.enumerateDevices()) ?? []
        let interfaces = devices.compactMap { device in
            device.address?.ipAddress.map {
                Interface(device: device.name, address: $0, netmask: device.netmask?.ipAddress)
            }
        }
        return name(
            address: address, interfaces: interfaces, routes4: read("/proc/net/route"),
            routes6: read("/proc/net/ipv6_route"))
    }

    /// The name, from what the system's tables say.
    /// - Parameters:
    ///   - routes4: as in `/proc/net/route`.
    ///   - routes6: as in `/proc/net/ipv6_route`.
    static func name(address: String, interfaces: [Interface], routes4: String, routes6: String) -> String {
        let interface = interfaces.first { $0.address == address }
        let isIPv6 = address.contains(":")
        let network = network(of: address, netmask: interface?.netmask) ?? address
        let gateway = interface.flatMap {
            isIPv6 ? gateway6(of: $0.device, in: routes6) : gateway4(of: $0.device, in: routes4)
        }
        return "\(network) via \(gateway ?? "none")"
    }

    /// Destination, gateway and mask are hexadecimal numbers in the machine's byte order.
    private static func gateway4(of device: String, in table: String) -> String? {
        let routes = table.split(separator: "\n").compactMap { line -> (metric: UInt32, gateway: String)? in
            let fields = line.split(whereSeparator: \.isWhitespace)
            guard fields.count >= 8, fields[0] == device, UInt32(fields[1], radix: 16) == 0,
                UInt32(fields[7], radix: 16) == 0, let flags = UInt32(fields[3], radix: 16), flags & 3 == 3,
                let gateway = UInt32(fields[2], radix: 16), let metric = UInt32(fields[6])
            else { return nil }
            let bytes = withUnsafeBytes(of: gateway) { Array($0) }
            return (metric, bytes.map(String.init).joined(separator: "."))
        }
        return routes.min { $0.metric < $1.metric }?.gateway
    }

    /// Destination, prefix length, source, its length, next hop, metric, counters, flags, device; all hexadecimal.
    private static func gateway6(of device: String, in table: String) -> String? {
        let routes = table.split(separator: "\n").compactMap { line -> (metric: UInt32, gateway: String)? in
            let fields = line.split(whereSeparator: \.isWhitespace)
            guard fields.count >= 10, fields[9] == device, fields[1] == "00", let flags = UInt32(fields[8], radix: 16),
                flags & 3 == 3, fields[4].utf8.count == 32, let metric = UInt32(fields[5], radix: 16)
            else { return nil }
            return (metric, String(fields[4]))
        }
        return routes.min { $0.metric < $1.metric }?.gateway
    }

    /// The address with its host part cleared, and the length of what is left. IPv6 networks are 64 bits where the system
    /// does not say.
    private static func network(of address: String, netmask: String?) -> String? {
        guard var bytes = bytes(of: address) else { return nil }
        var mask = netmask.flatMap { Self.bytes(of: $0) } ?? []
        if mask.count != bytes.count {
            mask = bytes.count == 16 ? [UInt8](repeating: 255, count: 8) + [UInt8](repeating: 0, count: 8) : []
        }
        guard !mask.isEmpty else { return nil }
        for index in bytes.indices { bytes[index] &= mask[index] }
        let length = mask.reduce(0) { $0 + $1.nonzeroBitCount }
        let text =
            bytes.count == 4
            ? bytes.map(String.init).joined(separator: ".")
            : bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        return "\(text)/\(length)"
    }

    private static func bytes(of address: String) -> [UInt8]? {
        let isIPv6 = address.contains(":")
        var bytes = [UInt8](repeating: 0, count: isIPv6 ? 16 : 4)
        // A zone is no part of the network's name.
        let plain = address.split(separator: "%").first.map(String.init) ?? address
        return inet_pton(isIPv6 ? AF_INET6 : AF_INET, plain, &bytes) == 1 ? bytes : nil
    }

    /// The beginning of a table; empty where there is none. These files are made by the kernel when they are read: no disk
    /// is waited for.
    private static func read(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while text.count < 256 << 10 {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            text += buffer[0..<count]
        }
        return String(decoding: text, as: UTF8.self)
    }
}
