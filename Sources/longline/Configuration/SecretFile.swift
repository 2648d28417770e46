import ArgumentParser

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Files that hold a secret, and who may read them.
enum SecretFile {
    /// Who may read one besides its owner.
    enum Readers {
        /// Nobody.
        case none
        /// Its group: how a service gets at what root keeps.
        case group
    }

    /// - Parameters:
    ///   - option: what names the file, with its hyphens.
    ///   - readers: who may read it. Of a link, the file that it leads to counts.
    /// - Throws: `ValidationError` when others may as well. A file that is not there is found out by whoever reads it.
    static func check(_ path: String, _ option: String, readers: Readers) throws(ValidationError) {
        var status = stat()
        guard stat(path, &status) == 0 else { return }
        switch readers {
        case .none where status.st_mode & 0o077 != 0:
            throw ValidationError("\(option): others may read \(path), which holds secrets: chmod 600.")
        case .group where status.st_mode & 0o007 != 0:
            throw ValidationError("\(option): everybody may read \(path), which holds a secret: chmod o=.")
        default: return
        }
    }
}
