import LonglineSession
import LonglineWire

/// Watches what a device sends on one link: a lane is finished only when every publish on it has its answer, and until then no
/// publish is sent a second time. Each publish gets one answer.
struct ClientWatch {
    private var lanes: [LaneID: LaneHeader] = [:]
    private var unanswered: [LaneID: Set<PublishID>] = [:]

    /// A frame leaves the device.
    /// - Returns: what is wrong with it.
    mutating func sent(_ frame: Frame, lane: LaneID) -> String? {
        switch frame {
        case .lane(let header): lanes[lane] = header
        case .publish(let publish):
            guard let header = lanes[lane] else { return "PUBLISH before LANE" }
            if unanswered.values.contains(where: { $0.contains(publish.id) }) {
                return "\(header.channel): publish \(publish.id) is sent again before it was answered"
            }
            unanswered[lane, default: []].insert(publish.id)
        default: break
        }
        return nil
    }

    /// A frame of the server reaches the device.
    /// - Returns: what is wrong with it.
    mutating func received(_ frame: Frame) -> String? {
        let id: PublishID
        switch frame {
        case .published(let published): id = published.id
        case .refused(let refused): id = refused.id
        default: return nil
        }
        var isAwaited = false
        for lane in unanswered.keys where unanswered[lane]?.remove(id) != nil { isAwaited = true }
        return isAwaited ? nil : "publish \(id) is answered, and no answer is awaited"
    }

    /// The device finishes a lane.
    /// - Returns: what is wrong with that.
    func finished(_ lane: LaneID) -> String? {
        guard let open = unanswered[lane], !open.isEmpty else { return nil }
        let channel = lanes[lane].map { "\($0.channel)" } ?? ""
        return "\(channel): lane \(lane.rawValue) is finished with \(open.count) publishes without an answer"
    }
}
