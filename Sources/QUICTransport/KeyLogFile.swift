internal import Glibc
internal import Synchronization

/// Appends TLS secrets to a file in the format of SSLKEYLOGFILE, for decrypting captures of one's own connections.
///
/// Opt-in: nothing is written unless an application makes one of these or calls ``fromEnvironment()``. Whoever has the
/// file can read the connections.
public final class KeyLogFile: Sendable {
    private let descriptor: Int32
    private let lock = Mutex(())

    /// Opens a file to append to; it is created readable by its owner only.
    /// - Throws: ``QUICTransportError`` with ``QUICTransportError/Code/fileAccess`` if it can't be opened.
    public init(path: String) throws {
        descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw QUICTransportError(
                .fileAccess, "the key log \(path) could not be opened", cause: String(cString: strerror(errno)),
                advice: "Name a file in a directory that can be written to.")
        }
    }

    /// The file that the environment variable SSLKEYLOGFILE names, or nil if it is unset or empty.
    public static func fromEnvironment() throws -> KeyLogFile? {
        guard let value = getenv("SSLKEYLOGFILE"), value.pointee != 0 else { return nil }
        return try KeyLogFile(path: String(cString: value))
    }

    deinit { close(descriptor) }

    /// Appends one line; a line is written whole. What can't be written is lost: a key log is no reason to fail.
    public func append(_ line: String) {
        var text = line
        if !text.hasSuffix("\n") { text.append("\n") }
        lock.withLock { _ in
            text.withUTF8 { bytes in _ = write(descriptor, bytes.baseAddress, bytes.count) }
        }
    }
}
