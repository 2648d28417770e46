import Logging
import LonglineLinks
import NIOCore
import QUICEngine
import QUICTransport

/// Opens links over QUIC.
final class QUICConnector: LinkConnector {
    private let links: QUICLinkConnector
    private let verification: TLSClientVerification
    private let keyLog: (@Sendable (String) -> Void)?

    init(configuration: LonglineClient.Configuration, resolver: NameResolver) {
        links = QUICLinkConnector(resolver: resolver, logger: configuration.logger)
        keyLog = configuration.keyLog
        verification = configuration.trust.verification
    }

    func open(
        _ request: LinkRequest, on loop: any EventLoop, handler: any LinkHandler,
        failed: @escaping (ClientError) -> Void
    ) -> any LinkAttempt {
        var target = QUICLinkTarget(
            host: request.accessPoint.host, port: request.accessPoint.port, serverName: request.serverName,
            verification: verification)
        target.sessionTicket = request.sessionTicket
        target.addressToken = request.addressToken
        target.earlyData = request.earlyData
        target.localAddress = request.localAddress
        target.keyLog = keyLog
        // Whatever fails is told through the handler: the link exists at once.
        return links.open(target, on: loop, handler: handler)
    }
}

extension QUICLink: MobileLink, LinkAttempt {
    var linkStatistics: LinkStatistics? {
        statistics.map { numbers in
            LinkStatistics(
                latestRTT: .nanoseconds(numbers.latestRTT.nanoseconds),
                smoothedRTT: .nanoseconds(numbers.smoothedRTT.nanoseconds),
                minimumRTT: .nanoseconds(numbers.minimumRTT.nanoseconds),
                congestionWindow: Int(clamping: numbers.congestionWindow), bytesSent: numbers.bytesSent,
                bytesReceived: numbers.bytesReceived, packetsSent: numbers.packetsSent,
                packetsReceived: numbers.packetsReceived, localAddress: "\(numbers.path.local)",
                remoteAddress: "\(numbers.path.remote)")
        }
    }
}
