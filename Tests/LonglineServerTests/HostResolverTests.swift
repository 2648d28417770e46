import HostNames
import NIOCore
import NIOPosix
import Testing

@testable import LonglineHTTP

/// What NIO is told of a host that a connection over TCP goes to.
@Suite(.timeLimit(.minutes(1))) struct HostResolverTests {
    @Test("in a network with IPv6 alone a numeric IPv4 host has its translated address, for both questions at once")
    func translated() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let translation = AddressTranslation(
            source: { remote in
                if case .v4 = remote { nil } else { try? SocketAddress(ipAddress: "2001:db8:1::1", port: 0) }
            },
            lookUp: { _ in [try SocketAddress(ipAddress: "64:ff9b::c000:aa", port: 0)] })
        let resolver = HostResolver(translation: translation) { _ in [] }
        let query = resolver.query(host: "192.0.2.33", port: 7, on: loop)
        let (four, six) = (
            query.initiateAQuery(host: "192.0.2.33", port: 7), query.initiateAAAAQuery(host: "192.0.2.33", port: 7)
        )
        #expect(try await four.get() == [try SocketAddress(ipAddress: "192.0.2.33", port: 7)])
        #expect(try await six.get() == [try SocketAddress(ipAddress: "64:ff9b::c000:221", port: 7)])
    }
}
