import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Tells the service manager that started this process how it is: systemd's sd_notify(3), which is one datagram.
enum ServiceManager {
    /// Clients can connect.
    static let ready = "READY=1"
    /// It was asked to end.
    static let stopping = "STOPPING=1"

    /// Sends a state to the socket that the environment names; does nothing where none is named.
    static func tell(_ state: String, _ environment: [String: String] = ProcessInfo.processInfo.environment) {
        guard let name = environment["NOTIFY_SOCKET"], let first = name.utf8.first else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var path = Array(name.utf8)
        // A socket without a file: its name begins with a null byte.
        if first == UInt8(ascii: "@") { path[0] = 0 }
        guard path[0] == 0 || path[0] == UInt8(ascii: "/"), path.count < MemoryLayout.size(ofValue: address.sun_path)
        else { return }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + path.count)
        let message = Array(state.utf8)
        _ = withUnsafePointer(to: address) { address in
            address.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, message, message.count, Int32(MSG_NOSIGNAL), $0, length)
            }
        }
    }
}
