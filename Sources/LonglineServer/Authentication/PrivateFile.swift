package import LonglineKeys
import LonglineStore

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Small files that only their owner may read: keys, what somebody sent. Every call blocks on the disk.
package enum PrivateFile {
    /// The file's bytes, or nil when there is none.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``; also when the file is larger than `limit` bytes, isn't a regular
    ///   file, or lets anyone but its owner in.
    static func read(_ path: String, limit: Int) throws(AuthenticationError) -> [UInt8]? {
        try read(path, limit: limit, isSecret: true)
    }

    /// The bytes of a file that holds no secret, or nil when there is none; otherwise as ``read(_:limit:)``, but others may
    /// read it. Whoever may write it decides what is in it.
    static func readPublic(_ path: String, limit: Int) throws(AuthenticationError) -> [UInt8]? {
        try read(path, limit: limit, isSecret: false)
    }

    private static func read(
        _ path: String, limit: Int, isSecret: Bool
    ) throws(AuthenticationError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0 {
            if errno == ENOENT { return nil }
            throw failure("can't open \(path)", errno)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure("can't look at \(path)", errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw AuthenticationError(.keyUnusable, "\(path) is not a regular file")
        }
        guard !isSecret || status.st_mode & 0o077 == 0 else {
            throw AuthenticationError(
                .keyUnusable, "\(path) holds a secret, and other users may read or write it",
                advice: "chmod 600 \(path)")
        }
        guard status.st_size <= limit else {
            throw AuthenticationError(.keyUnusable, "\(path) is larger than \(limit) bytes")
        }
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = bytes.withUnsafeMutableBytes { buffer in
                unsafeRead(descriptor, into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
            }
            if got == 0 { break }
            if got < 0 {
                if errno == EINTR { continue }
                throw failure("can't read \(path)", errno)
            }
            count += got
        }
        return Array(bytes[..<count])
    }

    /// Makes the file, whole or not at all, durable when this returns.
    /// - Returns: false when there is one already, which stays as it is.
    static func create(_ path: String, _ bytes: [UInt8]) throws(AuthenticationError) -> Bool {
        let temporary = try writeTemporary(beside: path, bytes)
        defer { unlink(temporary) }
        guard link(temporary, path) == 0 else {
            if errno == EEXIST { return false }
            throw failure("can't make \(path)", errno)
        }
        try syncDirectory(of: path)
        return true
    }

    /// The file's bytes; where there is none, it is made of `fresh`. A file that is there is read without a write: a full disk is
    /// no reason not to start.
    static func loadOrCreate(
        _ path: String, limit: Int, _ fresh: () -> [UInt8]
    ) throws(AuthenticationError) -> [UInt8] {
        if let bytes = try read(path, limit: limit) { return bytes }
        let made = fresh()
        if try create(path, made) { return made }
        // Another process was first.
        guard let bytes = try read(path, limit: limit) else {
            throw AuthenticationError(.keyUnusable, "\(path) came and went")
        }
        return bytes
    }

    /// Puts the file in place of what is there, if anything; a reader sees the old or the new, never a mixture.
    package static func replace(_ path: String, _ bytes: [UInt8]) throws(AuthenticationError) {
        let temporary = try writeTemporary(beside: path, bytes)
        guard rename(temporary, path) == 0 else {
            let error = errno
            unlink(temporary)
            throw failure("can't replace \(path)", error)
        }
        try syncDirectory(of: path)
    }

    /// Takes the file away, durably; done as well where there is none.
    static func remove(_ path: String) throws(AuthenticationError) {
        guard unlink(path) == 0 else {
            if errno == ENOENT { return }
            throw failure("can't remove \(path)", errno)
        }
        try syncDirectory(of: path)
    }

    private static func writeTemporary(beside path: String, _ bytes: [UInt8]) throws(AuthenticationError) -> String {
        let temporary = "\(path).\(String(UInt64.random(in: 0 ... .max), radix: 36)).new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure("can't make \(temporary)", errno) }
        FolderOwner.takes(descriptor, in: FolderOwner.folder(of: path))
        var error: CInt = 0
        var written = 0
        while written < bytes.count {
            let put = bytes[written...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if put < 0 {
                if errno == EINTR { continue }
                error = errno
                break
            }
            written += put
        }
        if error == 0, fsync(descriptor) != 0 { error = errno }
        close(descriptor)
        if error != 0 {
            unlink(temporary)
            throw failure("can't write \(temporary)", error)
        }
        return temporary
    }

    /// A new name is durable once its directory is.
    private static func syncDirectory(of path: String) throws(AuthenticationError) {
        let directory = FolderOwner.folder(of: path)
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("can't open \(directory)", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("can't sync \(directory)", errno) }
    }

    private static func unsafeRead(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        #if canImport(Musl)
            Musl.read(descriptor, buffer.baseAddress, buffer.count)
        #else
            Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        #endif
    }

    private static func failure(_ message: String, _ error: CInt) -> AuthenticationError {
        AuthenticationError(
            .keyUnusable, message, cause: String(cString: strerror(error)),
            advice: "check the directory, its owner and free space")
    }
}
