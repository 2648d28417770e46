/// A connection's streams with something to send, in the order in which they shall: see ``StreamPriority``. A stream is
/// in it at most once.
struct SendQueue {
    private struct Level {
        let urgency: UInt8
        var turns = FIFO<EngineStream>()
        /// Sorted by number, the smallest last.
        var sequential: [EngineStream] = []
        /// The one-after-the-other streams have just had their turn.
        var sequentialWasLast = false

        var isEmpty: Bool { turns.isEmpty && sequential.isEmpty }

        mutating func insert(_ stream: EngineStream) {
            guard !stream.priority.isIncremental else { return turns.append(stream) }
            var low = 0
            var high = sequential.count
            while low < high {
                let middle = (low + high) / 2
                if sequential[middle].id > stream.id { low = middle + 1 } else { high = middle }
            }
            sequential.insert(stream, at: low)
        }

        mutating func popFirst() -> EngineStream? {
            if !sequential.isEmpty, turns.isEmpty || !sequentialWasLast {
                sequentialWasLast = true
                return sequential.removeLast()
            }
            sequentialWasLast = false
            return turns.popFirst()
        }
    }

    /// Levels that were ever used, the most urgent first: nearly always one.
    private var levels: [Level] = []

    var isEmpty: Bool { levels.allSatisfy(\.isEmpty) }

    /// The stream, if it is the only one.
    var only: EngineStream? {
        var found: EngineStream?
        for level in levels where !level.isEmpty {
            guard found == nil, level.turns.count + level.sequential.count == 1 else { return nil }
            found = level.sequential.last ?? level.turns.first
        }
        return found
    }

    mutating func append(_ stream: EngineStream) {
        let urgency = stream.priority.urgency
        for index in levels.indices where levels[index].urgency >= urgency {
            if levels[index].urgency > urgency { levels.insert(Level(urgency: urgency), at: index) }
            levels[index].insert(stream)
            return
        }
        levels.append(Level(urgency: urgency))
        levels[levels.count - 1].insert(stream)
    }

    mutating func popFirst() -> EngineStream? {
        for index in levels.indices {
            if let stream = levels[index].popFirst() { return stream }
        }
        return nil
    }

    /// Takes a stream out, wherever it is.
    mutating func remove(_ stream: EngineStream) {
        for index in levels.indices where levels[index].urgency == stream.priority.urgency {
            levels[index].sequential.removeAll { $0 === stream }
            levels[index].turns.removeAll { $0 === stream }
        }
    }

    mutating func removeAll() { levels.removeAll() }
}
