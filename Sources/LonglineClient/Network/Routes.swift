import NIOCore

/// By which of this device's addresses packets leave: to the access point where that is an address, and to the rest of the world.
///
/// A machine on which containers or virtual machines come and go has many addresses that come and go with them, and all of its packets
/// leave as before.
struct Routes: Sendable {
    /// The globally reachable anycast addresses of RFC 7723, of which any does: only the way out is asked for, and nothing is sent.
    private static let everywhere = ["192.0.0.9:9", "[2001:1::1]:9"]

    /// The local address toward each of these; empty where there is no route.
    private var addresses: [String: String] = [:]

    /// Of no attempt.
    init() {}

    /// - Parameter lookUp: the local address toward `host:port`; nil where the host is a name, or no route leads there.
    init(toward target: AccessPoint?, by lookUp: (String) -> SocketAddress?) {
        for place in Self.everywhere + [target?.description].compactMap({ $0 }) {
            addresses[place] = lookUp(place)?.ipAddress ?? ""
        }
    }

    /// Whether packets would leave by other addresses now, or by one where none could.
    func areOthers(by lookUp: (String) -> SocketAddress?) -> Bool {
        addresses.contains { place, address in lookUp(place)?.ipAddress ?? "" != address }
    }

    /// Whether one of these is such an address.
    func use(anyOf others: Set<String>) -> Bool { addresses.values.contains(where: others.contains) }
}
