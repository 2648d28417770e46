/// The value of a setting, each item as the command line takes it.
package enum SettingValue: Hashable, Sendable {
    /// A single value; of a flag, `true` or `false`.
    case single(String)
    /// The items of a list.
    case list([String])

    /// All items.
    package var items: [String] {
        switch self {
        case .single(let item): [item]
        case .list(let items): items
        }
    }
}
