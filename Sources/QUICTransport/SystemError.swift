internal import Glibc
internal import NIOCore

/// What people are told of an error that the system gave.
package enum SystemError {
    /// The system's own words. NIO's put a function with its parameters before them, and half a bracket behind.
    /// - Returns: of any other error what it says of itself.
    package static func words(_ error: any Error) -> String {
        guard let error = error as? IOError else { return "\(error)" }
        return String(cString: strerror(error.errnoCode))
    }
}
