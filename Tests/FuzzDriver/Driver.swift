import FuzzTargets

#if canImport(Glibc)
    internal import Glibc
#endif

/// libFuzzer's entry point; its own `main` calls it. The environment names the target.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    do {
        try Driver.target.run(UnsafeRawBufferPointer(start: data, count: size))
        return 0
    } catch {
        fatalError("\(error)")
    }
}

enum Driver {
    static let target: FuzzTarget = {
        let name = getenv("LONGLINE_FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard let target = FuzzTarget(rawValue: name) else {
            fatalError("LONGLINE_FUZZ_TARGET is '\(name)'; see scripts/fuzz")
        }
        return target
    }()
}
