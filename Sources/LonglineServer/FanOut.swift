import DequeModule
import LonglineLinks
import LonglineStore
import LonglineWire
import NIOCore

/// Wakes of channels that many sessions of one event loop listen to, worked off some at a time, so that the loop's sockets and
/// everybody else get their turn in between.
///
/// ```
///              wake, many listeners           some a tick          all had their turn
///   (none) ──────────────────────────▶ pass ─────────────▶ pass ─────────────────────▶ (none)
///                                       ▲   another wake    │ and a wake came meanwhile
///                                       └── notes its head  └──────▶ a pass anew
/// ```
/// However often a channel is woken, it has one pass: what was entered meanwhile is read by the sessions together.
struct FanOut {
    fileprivate struct Pass {
        var head: Position
        var hosts: [SessionHost]
        var next = 0
        /// A wake came after some had their turn.
        var isBehind = false
    }

    /// Sessions woken, or answered with one page, before others get their turn. So few that the CPU's second-level cache holds all
    /// that is touched for them until their packets have left.
    static let sessionsPerTick = 24

    fileprivate var passes: [ChannelKey: Pass] = [:]
    fileprivate var order: Deque<ChannelKey> = []
    fileprivate var isScheduled = false
}

extension Position {
    /// Whether this is an older place of the same life of a log.
    func isBehind(_ other: Position) -> Bool { epoch == other.epoch && offset < other.offset }
}

extension ServerLoop {
    /// Wakes who listens to a channel. They read the log; no payload comes this way.
    func wakeListeners(of channel: ChannelKey, head: Position) {
        if let known = fanOut.passes[channel]?.head {
            // Wakes come in any order: an older one takes nothing back, or who has not had its turn would not be told of the newest.
            if !head.isBehind(known) { fanOut.passes[channel]?.head = head }
            fanOut.passes[channel]?.isBehind = true
        } else if listenerCount(of: channel) <= FanOut.sessionsPerTick {
            let now = eventLoop.now
            forEachListener(of: channel) { $0.logAdvanced(channel.channel, head: head, now: now) }
        } else {
            begin(channel, head)
            scheduleFanOut()
        }
    }

    private func begin(_ channel: ChannelKey, _ head: Position) {
        var hosts: [SessionHost] = []
        hosts.reserveCapacity(listenerCount(of: channel))
        forEachListener(of: channel) { hosts.append($0) }
        fanOut.passes[channel] = FanOut.Pass(head: head, hosts: hosts)
        fanOut.order.append(channel)
    }

    private func scheduleFanOut() {
        guard !fanOut.isScheduled, !fanOut.order.isEmpty else { return }
        fanOut.isScheduled = true
        reference.execute { $0.continueFanOut() }
    }

    private func continueFanOut() {
        fanOut.isScheduled = false
        guard let channel = fanOut.order.popFirst(), var pass = fanOut.passes.removeValue(forKey: channel) else {
            return
        }
        let now = eventLoop.now
        let end = min(pass.next + FanOut.sessionsPerTick, pass.hosts.count)
        let slice = pass.hosts[pass.next..<end]
        for host in slice { host.logAdvanced(channel.channel, head: pass.head, now: now) }
        // Of apps in the background none is sent anything now.
        slice.lazy.compactMap { $0.link }.first?.pollSockets()
        pass.next = end
        if end < pass.hosts.count {
            fanOut.passes[channel] = pass
            fanOut.order.append(channel)
        } else if pass.isBehind {
            begin(channel, pass.head)
        }
        drainDirty()
        scheduleFanOut()
    }
}
