import ArgumentParser
import Foundation
import LonglineClient
import LonglineKeys
import LonglineServer
import LonglineWire
import NIOCore

#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// Payloads that come from files, and go into files.
enum PayloadFiles {
    /// Reads a message's payload.
    /// - Parameter path: a file, or `-` for standard input.
    /// - Throws: ``ValidationError`` when it can't be read, or holds more than a message may.
    static func read(_ path: String) throws -> ByteBuffer {
        let name = path == "-" ? "Standard input" : path
        let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw unreadable(name, errno) }
        defer { if descriptor != STDIN_FILENO { close(descriptor) } }
        var payload = ByteBuffer()
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        while payload.readableBytes <= FrameLimits.maximumWholePayload {
            let (count, code) = DescriptorInput.read(descriptor, into: &chunk)
            if code == EINTR { continue }
            guard count >= 0 else { throw unreadable(name, code) }
            // A pipe gives what is there; only nothing is its end.
            guard count > 0 else { return payload }
            payload.writeBytes(chunk[..<count])
        }
        throw ValidationError("\(name) holds more than \(FrameLimits.maximumWholePayload) bytes.")
    }

    private static func unreadable(_ name: String, _ code: Int32) -> ValidationError {
        ValidationError("\(name) can't be read: \(String(cString: strerror(code))).")
    }

    /// Makes the directory that payloads are written into, for this user alone, unless it is there.
    /// - Throws: ``ValidationError`` when it can't be made, or is a file.
    static func makeDirectory(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw ValidationError("--save: \(path) can't be made a directory: \(error.localizedDescription)")
        }
    }

    /// Writes a message's payload into a file of its own, for this user alone and durably, in place of what an earlier try left there.
    /// - Returns: the file's path.
    /// - Throws: ``ClientError/Code/storage``: the message is not confirmed then, and comes again.
    static func save(_ message: Message, in directory: String) throws -> String {
        // Names hold letters, digits and . _ ~ @ + - only.
        let channel = message.channel.description.replacing("/", with: "-")
        let epoch = String(message.position.epoch, radix: 16)
        let url = URL(filePath: directory).appending(path: "\(channel)-\(epoch)-\(message.position.offset)")
        let path = url.path(percentEncoded: false)
        do throws(AuthenticationError) {
            try PrivateFile.replace(path, Array(message.payload.readableBytesView))
        } catch {
            throw ClientError(
                .storage, message: "\(path) can't be written: \(error.cause)",
                advice: "make room, or the directory writable; the message comes again")
        }
        return path
    }
}

extension Message {
    /// Whether its payload is what a user sent, and not the service's word about a room.
    var isOfSender: Bool {
        switch kind {
        case .joined, .left, .changed: false
        case .message, .edited, .retracted, .reacted, .reply, .request: true
        }
    }
}
