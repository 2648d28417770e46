import LonglineSession
import LonglineWire

/// A page of history that a device asked for, and what there was then.
struct AskedPage {
    var request: HistoryRequest
    /// The log's last entry.
    var head: Position?
}

/// What history promises: nothing but what its user may read, each entry as it is, and everything in the stretch that the page
/// names.
extension MessageChecker {
    mutating func page(_ result: HistoryResult, of asked: AskedPage, to app: App, truth: Truth, wall: WallTime) {
        guard !isErased(app) else { return }
        let request = asked.request
        let answer = result.answer
        let place = "history of \(request.channel) for \(app.device)"
        if let refusal = answer.refusal {
            let isKnown = [.forbidden, .unknownChannel, .epochChanged, .invalidRange, .overloaded].contains(refusal)
            if !isKnown { violation("\(place): refused with \(refusal)") }
            return
        }
        // Nothing was entered in a log that is not written down.
        guard let log = truth.readableLog(request.channel, of: answer.epoch) else {
            return violation("\(place): a page of another log")
        }
        var entries: Set<Offset> = []
        for item in result.items {
            guard case .entry(let entry) = item else { continue }
            entries.insert(entry.offset)
            if log.entry(at: entry.offset) != entry { violation("\(place): \(entry.offset) is not in the log") }
            if !truth.mayReadPast(entry.offset, of: request.channel, app.user) {
                violation("\(place): \(entry.offset) is given without a right to it")
            }
        }
        if entries.count > Int(request.limit) { violation("\(place): \(entries.count) entries, not \(request.limit)") }
        guard let stint = truth.stint(of: app.user, in: request.channel) else { return }
        func isMissing(_ entry: Entry) -> Bool {
            entry.offset > max(stint.after, log.first) && entry.offset <= stint.upTo ?? .max
                && !entries.contains(entry.offset) && !log.erased.contains(entry.offset)
                && !log.isOver(entry, wall)
        }
        for entry in log.entries(above: answer.start) where entry.offset <= answer.end && isMissing(entry) {
            violation("\(place): \(entry.offset) is missing in a page from \(answer.start) to \(answer.end)")
        }
        checkEnds(asked, answer, log, place, isMissing)
    }

    private mutating func checkEnds(
        _ asked: AskedPage, _ answer: HistoryAnswer, _ log: Truth.Log, _ place: String, _ isMissing: (Entry) -> Bool
    ) {
        let request = asked.request
        switch request.direction {
        case .newer:
            if answer.start != request.from { violation("\(place): from \(answer.start), not \(request.from)") }
        case .older:
            if answer.end >= request.from { violation("\(place): up to \(answer.end), and not below \(request.from)") }
        }
        if answer.more, answer.end == answer.start { violation("\(place): a page without an end") }
        // A session may hear of a join or leave later than the log has it.
        if case .room = request.channel { return }
        guard let head = asked.head, head.epoch == log.epoch else { return }
        let rest =
            switch request.direction {
            case .newer: answer.more ? head.offset + 1 : answer.end
            case .older: answer.end
            }
        let end = request.direction == .older ? min(head.offset, request.from - 1) : head.offset
        for entry in log.entries(above: rest) where entry.offset <= end && isMissing(entry) {
            violation("\(place): \(entry.offset) is left out behind the page that ends at \(answer.end)")
        }
    }
}
