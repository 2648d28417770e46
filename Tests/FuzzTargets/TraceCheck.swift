import QUICEngine
import Synchronization

/// Takes qlog traces and finds out whether they are JSON text sequences (RFC 7464): whatever a peer says, no record ends
/// another's or begins one.
final class TraceCheck: Sendable {
    private struct State {
        var open: [UInt8] = []
        var finding: String?
        var records = 0
    }

    private let state = Mutex(State())
    /// More than any record has.
    private static let limit = 16_384

    /// For a configuration.
    var log: QLog { { _ in { [self] bytes, isLast in take(bytes, isLast: isLast) } } }

    func check() throws {
        let (finding, records) = state.withLock { ($0.finding, $0.records) }
        if let finding { throw FuzzFinding("a trace is broken: \(finding)") }
        guard records > 0 else { throw FuzzFinding("nothing was traced") }
    }

    private func take(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {
        state.withLock { state in
            guard state.finding == nil else { return }
            for byte in bytes {
                switch byte {
                case 0x1e where state.open.isEmpty: state.open.append(byte)
                case 0x0a where state.open.last == UInt8(ascii: "}"):
                    state.records += 1
                    state.open = []
                case 0x20..<0x7f where !state.open.isEmpty && state.open.count < Self.limit: state.open.append(byte)
                default:
                    state.finding = "\(byte) behind " + String(decoding: state.open.suffix(80), as: UTF8.self)
                    return
                }
            }
        }
    }
}
