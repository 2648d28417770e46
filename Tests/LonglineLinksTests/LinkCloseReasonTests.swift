import QUICEngine
import Testing

@testable import LonglineLinks

@Suite("Why a link is gone")
struct LinkCloseReasonTests {
    @Test(
        "What keeps the first packet from leaving is no failed handshake, for which a ticket could be to blame",
        arguments: [QUICError.Code.unreachable, .pathTooSmall, .connectionLimit])
    func nothingLeft(code: QUICError.Code) {
        guard case .failed = reason(of: code) else {
            Issue.record("\(reason(of: code))")
            return
        }
    }

    @Test(
        "What TLS says is one",
        arguments: [QUICError.Code.certificateRejected, .handshakeFailed])
    func handshakeFailed(code: QUICError.Code) {
        guard case .handshakeFailed = reason(of: code) else {
            Issue.record("\(reason(of: code))")
            return
        }
    }

    @Test("A handshake that took too long is told from one that failed")
    func handshakeTimeout() {
        #expect(LinkCloseReason(.handshakeTimeout) == .handshakeTimeout)
    }

    private func reason(of code: QUICError.Code) -> LinkCloseReason {
        LinkCloseReason(.handshakeFailed(QUICError(code, "It didn't work", advice: "Try again.")))
    }
}
