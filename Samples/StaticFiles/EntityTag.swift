import Foundation

/// The version of a file, by which clients ask for it only if it is, or isn't, the one that they have (RFC 9110 sections 8.8.3 and
/// 13.1). It names a file that was replaced or changed, unless it was changed in place twice within a tick of the file system's clock.
struct EntityTag: Equatable {
    /// As it is sent, in its quotes.
    let text: String

    init(_ status: stat) {
        let numbers = [
            UInt64(status.st_ino), UInt64(clamping: status.st_size), UInt64(clamping: status.st_mtim.tv_sec),
            UInt64(clamping: status.st_mtim.tv_nsec),
        ]
        text = "\"\(numbers.map { String($0, radix: 16) }.joined(separator: "-"))\""
    }

    /// Whether a client's list names it.
    /// - Parameter weakly: whether a weak tag of the same text is as good (RFC 9110 section 8.8.3.2).
    func isNamed(in list: String, weakly: Bool) -> Bool {
        list.split(separator: ",").contains { item in
            let tag = item.trimmingCharacters(in: .whitespaces)
            return tag == text || tag == "*" || (weakly && tag == "W/\(text)")
        }
    }
}
