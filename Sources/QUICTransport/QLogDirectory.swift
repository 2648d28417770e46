internal import Glibc
public import QUICEngine
internal import Synchronization

/// Writes the qlog trace of each connection into a file of its own, for debugging: `<original destination ID>_client.sqlog`
/// or `…_server.sqlog`, JSON text sequences in the format of qlog 0.3, as qvis opens them. The two sides' files of one
/// connection have the same ID.
///
/// ```swift
/// let traces = try QLogDirectory(path: "/var/tmp/qlog")
/// configuration.qlog = traces.log
/// ```
/// Writing happens on the connections' loops, so a slow disk slows them down. A trace tells who spoke to whom, when and how
/// much, and no content.
public final class QLogDirectory: Sendable {
    /// Bytes of a file at most; what comes after is left out, and a trace cut there is still a valid one.
    public let maxFileSize: Int
    /// Files this object makes at most; later connections leave no trace.
    public let maxFiles: Int
    private let path: String
    private let made = Mutex(0)

    /// Makes the directory if it is missing.
    /// - Throws: ``QUICTransportError`` with ``QUICTransportError/Code/fileAccess``.
    public init(path: String, maxFileSize: Int = 64 << 20, maxFiles: Int = 1000) throws(QUICTransportError) {
        self.path = path
        self.maxFileSize = maxFileSize
        self.maxFiles = maxFiles
        guard mkdir(path, 0o700) == 0 || errno == EEXIST, access(path, W_OK | X_OK) == 0 else {
            throw QUICTransportError(
                .fileAccess, "traces can't be written to \(path)", cause: String(cString: strerror(errno)),
                advice: "Name a directory that can be written to, in one that exists.")
        }
    }

    /// The directory that the environment variable QLOGDIR names, or nil if it is unset or empty.
    public static func fromEnvironment() throws(QUICTransportError) -> QLogDirectory? {
        guard let value = getenv("QLOGDIR"), value.pointee != 0 else { return nil }
        return try QLogDirectory(path: String(cString: value))
    }

    /// For `ServerConfiguration.qlog` and `ClientConfiguration.qlog`.
    public var log: QLog {
        { subject in self.open(subject) }
    }

    private func open(_ subject: QLogSubject) -> QLogWriter? {
        let isAllowed = made.withLock { made in
            guard made < maxFiles else { return false }
            made += 1
            return true
        }
        guard isAllowed else { return nil }
        let name = "\(subject.originalDestinationIDText)_\(subject.isServer ? "server" : "client").sqlog"
        guard let file = TraceFile(path: "\(path)/\(name)", limit: maxFileSize) else {
            made.withLock { $0 -= 1 }
            return nil
        }
        return { bytes, isLast in file.take(bytes, isLast: isLast) }
    }
}

/// One connection's file; only the connection's loop uses it.
private final class TraceFile {
    private static let bufferSize = 32 << 10

    private let descriptor: Int32
    private var left: Int
    private var buffer: [UInt8] = []

    /// nil: a debugging aid that can't be had is no reason to fail.
    init?(path: String, limit: Int) {
        // Never over another's: a client chooses the name by its connection ID.
        descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
        left = limit
    }

    deinit {
        flush()
        close(descriptor)
    }

    /// Records come whole, so a file that is cut ends with a whole one.
    func take(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {
        if bytes.count <= left {
            left -= bytes.count
            buffer.append(contentsOf: bytes)
        } else {
            left = 0
        }
        if isLast || buffer.count >= Self.bufferSize { flush() }
    }

    private func flush() {
        var offset = 0
        while offset < buffer.count {
            let written = buffer.withUnsafeBytes { write(descriptor, $0.baseAddress! + offset, $0.count - offset) }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else {
                // A full disk ends the trace, where a record may be cut.
                left = 0
                break
            }
            offset += written
        }
        buffer.removeAll(keepingCapacity: true)
    }
}
