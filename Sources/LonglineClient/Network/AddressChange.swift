/// The difference between two views of the machine's addresses.
struct AddressChange: Hashable, Sendable {
    /// Addresses that are not there any more, numeric, without port.
    var gone: Set<String>
    /// Addresses that were not there before.
    var new: Set<String>

    /// The difference, or nil when there is none.
    init?(from old: Set<String>, to new: Set<String>) {
        guard old != new else { return nil }
        gone = old.subtracting(new)
        self.new = new.subtracting(old)
    }
}
