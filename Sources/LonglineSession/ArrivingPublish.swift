import LonglineWire
import NIOCore

/// A publish whose payload is arriving in parts, on one of the client's lanes.
///
/// ```
///   PUBLISH, more to follow                     last part
///  ------------------------> gathering ------------------------> appended
///            |                 |  |  '--- empty PART, end of lane ---> refused: incomplete
///            | refused         |  '--- no room, or too slow ---> refused: overloaded
///            v                 v                                            |
///          passing over <------------------ parts still come ---------------'
///            '--- last part, empty PART, end of lane ---> (none)
/// ```
struct ArrivingPublish {
    enum State {
        case gathering(PayloadAssembly)
        /// It was answered; bytes that still come of it are dropped.
        case passingOver(received: UInt64)
    }

    let channel: ChannelID
    /// Without its payload.
    let publish: Publish
    /// The whole payload's bytes.
    let length: UInt64
    let startedAt: NIODeadline
    /// When the last part came.
    var lastPart: NIODeadline
    var state: State

    var isGathering: Bool {
        if case .gathering = state { true } else { false }
    }
}
