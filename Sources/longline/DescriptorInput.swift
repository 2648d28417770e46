#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// What is read from a file, a pipe or a terminal.
enum DescriptorInput {
    /// Reads what is there, or waits until something is.
    /// - Returns: how many bytes, 0 at the end; below that there is an error, whose number is with it.
    static func read(_ descriptor: Int32, into chunk: inout [UInt8]) -> (count: Int, error: Int32) {
        chunk.withUnsafeMutableBytes { buffer in
            #if canImport(Musl)
                let count = Musl.read(descriptor, buffer.baseAddress, buffer.count)
            #else
                let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            #endif
            // Before anything else can change it.
            return (count, count < 0 ? errno : 0)
        }
    }
}
