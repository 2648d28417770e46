import LonglineHTTP
import NIOHTTP1

extension WebhookDispatcher {
    /// What became of one request.
    enum Outcome {
        case told
        case muted
        case expired
        /// What it is about was taken back.
        case retracted
        /// The endpoint will not take it, however often it is sent.
        case rejected(UInt)
        /// `after`: the endpoint's own wish, in milliseconds.
        case failed(String, after: UInt64)
        /// Not the endpoint's fault.
        case postponed(String)

        var end: WebhookOutlets.End {
            switch self {
            // Who rejects something is not down.
            case .told, .rejected: .answered
            case .muted, .expired, .retracted, .postponed: .withdrawn
            case .failed: .failed
            }
        }
    }
}

extension WebhookDispatcher.Outcome {
    init(_ response: HTTPConnection.Response) {
        switch response.status {
        case 200..<300: self = .told
        // Timed out, too early, too many: the request itself is good.
        case 400..<500 where ![408, 425, 429].contains(response.status): self = .rejected(response.status)
        default:
            let seconds = response.headers.first(name: "retry-after").flatMap { UInt64($0) } ?? 0
            self = .failed("status \(response.status)", after: min(seconds, 3_600) * 1_000)
        }
    }
}
