import Foundation
import LonglineLinks
import LonglineServer
import LonglineStore
public import LonglineWire
public import NIOCore
import NIOPosix
import QUICEngine
public import QUICTransport

/// Members' devices, all on one loop.
///
/// Confined to ``loop`` but for ``connect(_:folder:port:cursors:)`` and ``end()``.
public final class Crowd: @unchecked Sendable {
    // Proof: what changes is touched on the loop only, where each of these two brings its work.
    /// Where they live.
    public let loop: any EventLoop
    private let connector: QUICLinkConnector
    private let delivered: (ByteBuffer) -> Void
    /// Those that are connected.
    public private(set) var members: [Member] = []

    /// Nobody yet.
    /// - Parameter delivered: called on the loop with each message that reaches a member.
    public init(sockets: QUICSocketOptions = .client, delivered: @escaping (ByteBuffer) -> Void) {
        loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        connector = QUICLinkConnector(sockets: sockets)
        self.delivered = delivered
    }

    /// Connects so many more users, some at a time: a thousand handshakes at once would lose packets.
    /// - Parameters:
    ///   - folder: the server's, whose keys sign the tokens.
    ///   - cursors: what each user's device has read, from user 0 on; empty: nothing.
    public func connect(_ count: Int, folder: String, port: Int, cursors: [[ChannelID: Position]] = [])
        async throws
    {
        let directory = try ServerDirectory(folder)
        let pin = try directory.developmentIdentity(names: ["localhost"]).pin
        var target = QUICLinkTarget(
            host: "127.0.0.1", port: port, serverName: "localhost", verification: .pinnedPublicKey(sha256: [pin]))
        target.earlyData = false
        let chosen = target
        var number = try await loop.submit { [self] in members.count }.get()
        let end = number + count
        while number < end {
            var devices: [(token: String, cursors: [ChannelID: Position])] = []
            while devices.count < 32, number < end {
                let phone = try Names.phone(number)
                let token = try await directory.sign(
                    tenant: phone.tenant, user: phone.user, device: phone.device, lifetime: 3_600_000)
                devices.append((token, number < cursors.count ? cursors[number] : [:]))
                number += 1
            }
            let batch = devices
            try await loop.flatSubmit { [self] in
                let connected = batch.map { device in
                    let member = Member(
                        loop: loop, token: device.token, cursors: device.cursors, delivered: delivered)
                    let promise = loop.makePromise(of: Void.self)
                    member.whenConnected = promise
                    member.open(connector, chosen)
                    members.append(member)
                    return promise.futureResult
                }
                return EventLoopFuture.andAllSucceed(connected, on: loop)
            }.get()
        }
        // What the connects brought is taken in and acknowledged.
        try await Task.sleep(for: .seconds(1))
    }

    /// Leaves.
    public func end() async {
        try? await loop.submit { [self] in for member in members { member.end() } }.get()
        await connector.shutdownGracefully()
    }
}
