internal import NIOCore
internal import QUICEngine

/// Ends connections of a server whose paths take no packets of 1,200 bytes any more (RFC 9000 section 14). Only small ones get through
/// there: they keep a connection alive that carries nothing, for as long as its client likes. Handshakes are left to their timeout.
///
/// Only the kernel's own word counts, of an interface or a route here: nobody in the network can make it say so.
final class SizeWatch {
    /// A path on which packets were refused for so long, and none passed, ends its connections.
    var refusalTime = TimeAmount.seconds(10)
    private static let leastPause = TimeAmount.milliseconds(10)

    private var refused = RefusedSizes()
    private weak var driver: LoopDriver?
    private var check: Scheduled<Void>?

    init(_ driver: LoopDriver) { self.driver = driver }

    /// Whether every path takes them, as far as is known.
    var isEmpty: Bool { refused.isEmpty }

    /// A packet of the size that QUIC needs was refused as too large.
    func refused(on path: QUICPath) {
        refused.refused(on: path, at: .now())
        schedule()
    }

    /// One left.
    func passed(on path: QUICPath) { refused.passed(on: path) }

    /// Looks at nothing any more.
    func end() {
        check?.cancel()
        check = nil
        driver = nil
    }

    /// All paths are judged at the same time: each look is one at all connections.
    private func schedule() {
        guard check == nil, !refused.isEmpty, let driver else { return }
        check = driver.eventLoop.assumeIsolated().scheduleTask(in: max(refusalTime, Self.leastPause)) {
            self.check = nil
            self.endConnections()
            self.schedule()
        }
    }

    private func endConnections() {
        guard let driver else { return }
        let paths = refused.take(refusedFor: refusalTime, at: .now())
        guard !paths.isEmpty else { return }
        for connection in driver.connections.values {
            guard let engine = connection.engine, engine.handshake != nil, paths.contains(engine.path) else { continue }
            engine.endForPathSize(now: .now())
        }
        driver.needsTick()
    }
}

/// The paths on which packets of the size that QUIC needs were refused since one of them passed.
struct RefusedSizes {
    private struct Refusals {
        var first: NIODeadline
        var last: NIODeadline
    }

    /// Paths that are known at a time. Others are judged when some of these are forgotten.
    static let capacity = 16_384
    /// A path on which none was refused for so long is judged anew.
    private static let memory = TimeAmount.minutes(1)

    private var paths: [QUICPath: Refusals] = [:]

    var isEmpty: Bool { paths.isEmpty }

    mutating func refused(on path: QUICPath, at now: NIODeadline) {
        if let known = paths[path], now - known.last < Self.memory {
            paths[path] = Refusals(first: known.first, last: now)
        } else if paths[path] != nil || paths.count < Self.capacity {
            paths[path] = Refusals(first: now, last: now)
        }
    }

    mutating func passed(on path: QUICPath) { paths[path] = nil }

    /// Takes out the paths on which none has passed between two refusals that lie so far apart, and forgets old ones.
    mutating func take(refusedFor time: TimeAmount, at now: NIODeadline) -> Set<QUICPath> {
        let found = Set(paths.filter { $0.value.last - $0.value.first >= time }.keys)
        paths = paths.filter { now - $0.value.last < Self.memory && !found.contains($0.key) }
        return found
    }
}
