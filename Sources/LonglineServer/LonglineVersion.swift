/// The package's version.
public enum LonglineVersion {
    /// The package, by semantic versioning.
    public static let current = "0.1.0"
    /// The newest version of the session protocol that it speaks.
    public static let protocolVersion: UInt32 = 1
}
