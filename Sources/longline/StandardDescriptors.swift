#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// The numbers of standard input, output and error, of which whoever starts a process may have closed some.
enum StandardDescriptors {
    /// Opens those that are closed, before a file or a socket of ours gets their number: what is printed and logged would go into it.
    ///
    /// Reading finds the end, and writing fails as on what is closed.
    static func occupy() {
        while true {
            let descriptor = open("/dev/null", O_RDONLY)
            guard descriptor >= 0 else { return }
            // The lowest number that is free: none of the three is any more.
            if descriptor > STDERR_FILENO {
                close(descriptor)
                return
            }
        }
    }
}
