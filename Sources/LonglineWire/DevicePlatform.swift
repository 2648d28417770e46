/// The class of devices that a device belongs to, as its token's `platform` claim says: `phone`, `tablet`, `desktop`, `web`, or
/// whatever an app tells apart. Only ``/LonglineStore/DevicePolicy/onePerPlatform`` looks at it.
public struct DevicePlatform: Hashable, Sendable, CustomStringConvertible {
    /// The longest name, in bytes: a resume ticket has to hold it.
    public static let limit = 32
    /// The class of devices whose token names none; a token may also name it, as `unknown`.
    public static let unknown = DevicePlatform(unchecked: "unknown")

    /// The name, 1 to 32 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        guard name.utf8.count <= Self.limit else { throw .tooLong(limit: Self.limit) }
        description = String(name)
    }

    private init(unchecked name: String) { description = name }
}
