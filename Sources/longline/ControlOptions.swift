import ArgumentParser
import Foundation
import Logging
import LonglineControl
import LonglineServer
import Metrics
import NIOCore
import ServiceLifecycle

/// Where a server's control layer listens, and what it tells clients.
struct ControlOptions: ParsableArguments {
    @Option(
        help: """
            An address for clients and app servers, HTTPS: 0.0.0.0:8443, or a port alone for 127.0.0.1. Give it several times for \
            several. Without one, and without --admin, there is no control layer.
            """)
    var control: [String] = []

    @Option(
        help: """
            An address for operators, HTTPS, with every route: a port alone for 127.0.0.1, or 10.0.0.1:8444. Give it several times \
            for several. Keep it from the public.
            """)
    var admin: [String] = []

    @Flag(
        inversion: .prefixedNo,
        help: "Answer what --control does over HTTP/3 as well, on the server's UDP port, and tell clients so.")
    var http3 = true

    @OptionGroup var access: AccessOptions

    @OptionGroup var limits: ControlLimitOptions

    var isEnabled: Bool { !control.isEmpty || !admin.isEmpty }

    func validate() throws {
        for address in control { _ = try Self.address(address, "--control") }
        for address in admin { _ = try Self.address(address, "--admin") }
        guard isEnabled else {
            guard let option = access.first ?? limits.first else { return }
            throw ValidationError("\(option) goes with --control or --admin.")
        }
        try refuseSharedAddresses()
    }

    /// Two listeners can't have one address, nor one of them all addresses of a port and another one of these.
    private func refuseSharedAddresses() throws {
        let listeners = control.map { ("--control", $0) } + admin.map { ("--admin", $0) }
        var taken: [SocketAddress] = []
        for (option, text) in listeners {
            let address = try Self.address(text, option)
            guard !taken.contains(where: { Self.collide($0, address) }) else {
                throw ValidationError("\(option): \(text) is listened on already.")
            }
            taken.append(address)
        }
    }

    private static func collide(_ one: SocketAddress, _ other: SocketAddress) -> Bool {
        guard let port = one.port, port > 0, port == other.port, one.protocol == other.protocol else { return false }
        let hosts = [one.ipAddress, other.ipAddress]
        return hosts[0] == hosts[1] || hosts.contains("0.0.0.0") || hosts.contains("::")
    }

    /// The control layer of a server on this folder; nil: none is wanted. Makes what is recorded through swift-metrics readable.
    func control(
        of server: LonglineServer, _ directory: ServerDirectory, _ logger: Logger
    ) throws -> LonglineControl? {
        guard isEnabled else {
            // What an earlier control layer kept of a user goes with the account all the same.
            if ControlDatabase.exists(directory) { try ControlDatabase(directory).isErased(with: server) }
            return nil
        }
        let metrics = PrometheusMetrics()
        MetricsSystem.bootstrap(metrics)
        var configuration = LonglineControl.Configuration(
            certificate: server.configuration.certificate, keys: DirectoryControlKeys(directory),
            database: try ControlDatabase(directory))
        configuration.addresses = try control.map { try Self.address($0, "--control") }
        configuration.adminAddresses = try admin.map { try Self.address($0, "--admin") }
        configuration.access = try access.settings()
        configuration.limits = try limits.limits()
        configuration.servesHTTP3 = http3
        configuration.metrics = metrics
        configuration.logger = logger
        return try LonglineControl(server: server, configuration: configuration)
    }

    private static func address(_ text: String, _ option: String) throws -> SocketAddress {
        let (host, port) = try split(text, option, standard: "127.0.0.1")
        do { return try SocketAddress(ipAddress: host, port: port) } catch {
            throw ValidationError(
                "\(option): '\(text)' is no numeric address with a port, such as 127.0.0.1:8443 or [::1]:8443.")
        }
    }

    /// `host:port`, `[address]:port`, or a port where there is a standard host.
    static func split(
        _ text: String, _ option: String, standard: String?
    ) throws -> (host: String, port: Int) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard let last = parts.last, let port = Int(last), (0...65535).contains(port) else {
            throw ValidationError("\(option): '\(text)' has no port from 0 to 65535 behind its last colon.")
        }
        if parts.count == 1, let standard { return (standard, port) }
        var host = text.dropLast(last.count + 1)
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { throw ValidationError("\(option): '\(text)' names no host.") }
        return (String(host), port)
    }
}

extension LonglineControl {
    /// Waits until every address is listened on.
    /// - Returns: what says where, a line for clients and app servers and one for operators.
    func announcement() async throws(ControlError) -> String {
        var text = ""
        for (kind, name) in [(ControlListener.service, "clients and app servers"), (.admin, "operators")] {
            let addresses = try await localAddresses(kind)
            guard !addresses.isEmpty else { continue }
            let places = addresses.map { address in
                let host = address.ipAddress ?? "?"
                return "https://\(host.contains(":") ? "[\(host)]" : host):\(address.port ?? 0)"
            }
            text += "longline control ready for \(name) on \(places.joined(separator: ", "))\n"
        }
        return text
    }
}
