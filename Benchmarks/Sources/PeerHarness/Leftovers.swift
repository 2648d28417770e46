public import Foundation
import Glibc

/// What a benchmark must not leave behind, however it ends: its child processes, which have process groups of their own and so
/// hear of no Ctrl-C, and its folders.
///
/// A shell that outlives it takes them away when the pipe to it is closed, which its end does in any case.
enum Leftovers {
    private static let script = """
        processes=''
        while read -r kind what; do
            case $kind in
                process) processes="$processes $what" ;;
                ended)
                    left=''
                    for one in $processes; do [ "$one" = "$what" ] || left="$left $one"; done
                    processes=$left
                    ;;
                folder) set -- "$@" "$what" ;;
            esac
        done
        for one in $processes; do kill -KILL "$one"; done
        for one; do rm -rf -- "$one"; done
        """

    /// Where the shell reads; negative if there is none. Open until this process ends.
    private static let shell: Int32 = {
        let process = Process()
        let input = Pipe()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", script]
        process.standardInput = input
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return -1 }
        return fcntl(input.fileHandleForWriting.fileDescriptor, F_DUPFD_CLOEXEC, 0)
    }()

    static func started(_ process: Int32) { tell("process \(process)") }

    static func ended(_ process: Int32) { tell("ended \(process)") }

    static func made(_ folder: URL) { tell("folder \(folder.path)") }

    private static func tell(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        // A line is so short that a pipe takes it as a whole.
        if shell >= 0 { _ = write(shell, bytes, bytes.count) }
    }
}

extension FileManager {
    /// A new folder's place in /var/tmp, or where TMPDIR says: /tmp is in memory on Debian 13, where a sync costs nothing. It goes
    /// with this process at the latest.
    public func benchmarkFolder(_ kind: String = "benchmark") -> URL {
        let place = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp"
        let folder = URL(filePath: place).appending(path: "longline-\(kind)-\(UUID().uuidString)")
        Leftovers.made(folder)
        return folder
    }
}
