import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Refused sizes")
struct RefusedSizesTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func path(_ port: UInt16, to host: UInt8 = 1) -> QUICPath {
        QUICPath(
            local: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 443),
            remote: QUICSocketAddress(ipv4: (198, 51, 100, host), port: port))
    }

    @Test("A path is too small when two packets were refused there ten seconds apart, and none passed between them")
    func tooSmall() {
        var sizes = RefusedSizes()
        for port: UInt16 in 1...4 { sizes.refused(on: path(port), at: start) }
        sizes.passed(on: path(2))
        sizes.refused(on: path(1), at: start + .seconds(5))
        sizes.refused(on: path(1), at: start + .seconds(10))
        sizes.refused(on: path(2), at: start + .seconds(10))
        sizes.refused(on: path(3), at: start + .seconds(9))
        let found = [10, 11].map { sizes.take(refusedFor: .seconds(10), at: start + .seconds($0)) }
        let expected: [Set<QUICPath>] = [[path(1)], []]
        #expect(found == expected)
    }

    @Test("A path on which nothing was refused for a minute is judged anew, and then forgotten")
    func forgets() {
        var sizes = RefusedSizes()
        sizes.refused(on: path(1), at: start)
        sizes.refused(on: path(1), at: start + .minutes(1))
        let first = sizes.take(refusedFor: .seconds(10), at: start + .minutes(1))
        #expect(first.isEmpty && !sizes.isEmpty)
        let second = sizes.take(refusedFor: .seconds(10), at: start + .minutes(2))
        #expect(second.isEmpty && sizes.isEmpty)
    }

    @Test("No more paths are known than there is room for, and others have their turn later")
    func isBounded() {
        var sizes = RefusedSizes()
        for port in 1...RefusedSizes.capacity { sizes.refused(on: path(UInt16(port)), at: start) }
        let late = path(1, to: 2)
        for seconds: Int64 in [0, 10] { sizes.refused(on: late, at: start + .seconds(seconds)) }
        let first = sizes.take(refusedFor: .seconds(10), at: start + .minutes(1))
        #expect(first.isEmpty && sizes.isEmpty)
        for seconds: Int64 in [60, 70] { sizes.refused(on: late, at: start + .seconds(seconds)) }
        let second = sizes.take(refusedFor: .seconds(10), at: start + .seconds(70))
        #expect(second == Set([late]))
    }
}
