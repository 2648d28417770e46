import Foundation
import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

/// Something that no peer may send, and the errors by which the standard answers it.
struct Violation: Sendable, CustomTestStringConvertible {
    var name: String
    /// The packets that carry it.
    var level = "1rtt"
    /// Frames in hexadecimal; dots stand for a stream that the sender may open and has not used.
    var frames: String
    /// RFC 9000 section 20.1; where the standard leaves a choice, all of them. Empty: no answer, and no effect.
    var codes: [Int]

    var testDescription: String { name }

    /// The frames as a client or a server would send them.
    func bytes(fromServer: Bool) -> Argument {
        .text(frames.replacingOccurrences(of: "..", with: fromServer ? "01" : "0c"))
    }

    static let protocolViolation = 0x0a
    private static let token = String(repeating: "77", count: 16)
    private static let huge = "d000000000000001"

    /// What neither side may send.
    static let common: [Violation] = [
        Violation(name: "stream data beyond the window", frames: "0c..c00000004000000041", codes: [0x03]),
        Violation(name: "an unknown frame", frames: "21", codes: [0x07]),
        Violation(name: "an unknown frame of two bytes", frames: "4fff", codes: [0x07]),
        // With the bit 0x08 they look like STREAM.
        Violation(name: "an unknown frame that looks like data", frames: "2a..0141", codes: [0x07]),
        Violation(
            name: "an unknown frame that looks like data with all there is to it", frames: "1f..000141", codes: [0x07]),
        Violation(name: "an unknown frame of two bytes that looks like data", frames: "4a..0141", codes: [0x07]),
        Violation(
            name: "an unknown frame of eight bytes that looks like data", frames: "cf..000141000000", codes: [0x07]),
        Violation(name: "a frame cut short", frames: "0400", codes: [0x07]),
        Violation(
            name: "stream data behind the largest offset", frames: "0c..ffffffffffffffff41", codes: [0x03, 0x07]),
        Violation(name: "MAX_STREAMS above 2^60", frames: "12" + huge, codes: [0x07]),
        Violation(name: "STREAMS_BLOCKED above 2^60", frames: "16" + huge, codes: [0x04, 0x07]),
        Violation(name: "an empty connection ID", frames: "184a000000" + token, codes: [0x07]),
        Violation(
            name: "a connection ID of 21 bytes",
            frames: "184a000015" + String(repeating: "31", count: 21) + token, codes: [0x07]),
        Violation(
            name: "an ID that is to be retired before it is used",
            frames: "180102083131313131313131" + token, codes: [0x07]),
        Violation(
            name: "more connection IDs than allowed",
            frames: (0x30..<0x3c).map { String(format: "18%02x0008%02x31313131313131", $0, $0) + token }.joined(),
            codes: [0x09]),
        Violation(
            name: "two IDs with one number",
            frames: "183500083131313131313131" + token + "183500083232323232323232" + token, codes: [0x0a, 0x09]),
        Violation(name: "retirement of an ID that was never given", frames: "1943e8", codes: [0x0a]),
        Violation(name: "retirement of the ID in use", frames: "1900", codes: [0x0a]),
        Violation(name: "acknowledgement of a packet never sent", frames: "0280ffffff000000", codes: [0x0a]),
        Violation(name: "an acknowledgement below packet 0", frames: "0200000001", codes: [0x07]),
        Violation(name: "handshake bytes far ahead", frames: "06900000000141", codes: [0x0d]),
    ]

    /// What a client may not send.
    static let byClient: [Violation] = [
        Violation(name: "HANDSHAKE_DONE", frames: "1e", codes: [0x0a]),
        Violation(name: "NEW_TOKEN", frames: "0701aa", codes: [0x0a]),
        Violation(name: "data on the server's stream that isn't open", frames: "080141", codes: [0x05]),
        Violation(name: "data on a stream that only the server writes", frames: "080341", codes: [0x05]),
        // ngtcp2 answers with the generic code, which "can always be used" (section 11).
        Violation(name: "reset of a stream that only the server writes", frames: "04030000", codes: [0x05, 0x0a]),
        Violation(name: "credit for a stream that only the client writes", frames: "110210", codes: [0x05]),
        Violation(name: "STOP_SENDING on a stream that only the client writes", frames: "050200", codes: [0x05]),
        Violation(name: "credit for the server's stream that isn't open", frames: "110110", codes: [0x05]),
        Violation(name: "blocked on a stream that only the server writes", frames: "150309", codes: [0x05]),
        Violation(name: "blocked on the server's stream that isn't open", frames: "150109", codes: [0x05]),
        Violation(name: "a stream beyond the limit", frames: "0880009c4041", codes: [0x04]),
        Violation(name: "blocked on a stream beyond the limit", frames: "1580009c4009", codes: [0x04]),
        Violation(name: "data behind a stream's end", frames: "0b..0541414141410e..050141", codes: [0x06]),
        Violation(name: "a reset that shortens an ended stream", frames: "0b..05414141414104..0003", codes: [0x06]),
        // Whoever sees a handshake can make Initial packets, so ngtcp2 doesn't let one with an error end it.
        Violation(name: "STREAM in an Initial packet", level: "initial", frames: "080041", codes: []),
        Violation(
            name: "an application's close in an Initial packet", level: "initial", frames: "1d0000", codes: []),
        Violation(name: "STREAM in a Handshake packet", level: "handshake", frames: "080041", codes: [0x0a]),
        Violation(name: "MAX_DATA in a Handshake packet", level: "handshake", frames: "1050ff", codes: [0x0a]),
        Violation(
            name: "an unknown frame in a Handshake packet", level: "handshake", frames: "21", codes: [0x07, 0x0a]),
    ]

    /// What a server may not send.
    static let byServer: [Violation] = [
        Violation(name: "an empty token", frames: "0700", codes: [0x07]),
        Violation(name: "data on the client's stream that isn't open", frames: "080841", codes: [0x05]),
        Violation(name: "data on a stream that only the client writes", frames: "080241", codes: [0x05]),
        Violation(name: "a stream beyond the limit", frames: "0880009c4141", codes: [0x04]),
        Violation(name: "STREAM in a Handshake packet", level: "handshake", frames: "080141", codes: [0x0a]),
        Violation(name: "HANDSHAKE_DONE in a Handshake packet", level: "handshake", frames: "1e", codes: [0x0a]),
    ]
}

@Suite(
    "Broken rules", .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)), .timeLimit(.minutes(1)))
struct ViolationTests {
    @Test("A client that breaks a rule is told which, and a connection beside it lives on")
    func byClient() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port, ["name": "bystander"])
            for violation in Violation.common + Violation.byClient {
                let name = violation.name
                let frames = violation.bytes(fromServer: false)
                if violation.level == "1rtt" {
                    _ = try await peer.connect(service.port, ["name": .text(name)])
                    try await peer.echo(name)
                    try await peer("inject", ["name": .text(name), "level": "1rtt", "frames": frames])
                } else {
                    _ = try await peer.attempt(
                        service.port,
                        ["name": .text(name), "inject": ["level": .text(violation.level), "frames": frames]])
                }
                guard !violation.codes.isEmpty else {
                    try await peer.echo(name)
                    continue
                }
                let end = try await peer.end(name, patience: 2)
                #expect(violation.codes.contains(end.code), "\(name): 0x\(String(end.code, radix: 16)) \(end.reason)")
                #expect(end.frame != nil, "\(name): closed as by an application")
            }
            try await peer.echo("bystander", streams: 10)
            #expect(try await !peer.state("bystander").ended)
            let answered = (Violation.common + Violation.byClient).count { !$0.codes.isEmpty }
            #expect(await service.counters().protocolErrors == UInt64(answered))
        }
    }

    @Test("A server that breaks a rule is told which, and our client says why it closed")
    func byServer() async throws {
        try await withClient { client, loop, peer in
            let port = try await peer.listen()
            let bystander = try await client.connect(port, on: loop)
            _ = try await peer.accepted()
            for violation in Violation.common + Violation.byServer where violation.level == "1rtt" {
                let connection = try await client.connect(port, on: loop)
                let name = try await peer.accepted().name
                try await connection.exchange()
                try await peer(
                    "inject", ["name": .text(name), "level": "1rtt", "frames": violation.bytes(fromServer: true)])
                let end = try await peer.end(name, patience: 2)
                #expect(violation.codes.contains(end.code), "\(violation): 0x\(String(end.code, radix: 16))")
                guard end.code >= 0, case .localTransport(let code, _) = try await connection.closed() else {
                    Issue.record("\(violation): not closed by our transport")
                    continue
                }
                #expect(Int(code) == end.code)
            }
            try await bystander.exchange()
        }
    }

    @Test(
        "Frames in the wrong packets fail our client's handshake",
        arguments: Violation.byServer.filter { $0.level == "handshake" })
    func atHandshakeLevel(violation: Violation) async throws {
        try await withClient { client, loop, peer in
            let port = try await peer.listen([
                "inject": ["level": "handshake", "frames": violation.bytes(fromServer: true)]
            ])
            // Whether the handshake or the frame is first depends on the order of datagrams.
            let connection = try? await client.connect(port, on: loop)
            let reason = try? await connection?.closed()
            if let reason { #expect(reason == .localTransport(code: 0x0a, reason: "ERR_PROTO"), "\(reason)") }
            let outcome = try await peer("accepted", as: PeerHandshake.self)
            if let name = outcome.handshake?.name {
                #expect(try await peer.end(name).code == 0x0a)
            } else {
                #expect(outcome.end?.code == 0x0a)
            }
        }
    }

    @Test(
        "TLS messages that have no place behind the handshake (RFC 9001 section 6)",
        arguments: ["18000001 00", "0b000000"])
    func handshakeBytes(message: String) async throws {
        let command: [String: Argument] = ["bytes": .text(message)]
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await peer.echo()
            try await peer("handshakeBytes", command.merging(["name": "client"]) { $1 })
            #expect(try await peer.end(patience: 2).code == 0x10a)
        }
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange()
            try await peer("handshakeBytes", command.merging(["name": .text(name)]) { $1 })
            #expect(try await peer.end(name, patience: 2).code == 0x10a)
        }
    }

    @Test("Reserved bits and empty packets")
    func barePackets() async throws {
        try await withServer { service, peer in
            for (name, flags, payload) in [("reserved", 0x18, "01"), ("empty", 0, "")] {
                _ = try await peer.connect(service.port, ["name": .text(name)])
                try await peer.echo(name)
                try await peer(
                    "barePacket", ["name": .text(name), "flags": .number(flags), "payload": .text(payload)])
                #expect(try await peer.end(name).code == Violation.protocolViolation, "\(name)")
            }
        }
    }

    @Test(
        "Transport parameters that are none",
        arguments: [
            // ack_delay_exponent 21; max_udp_payload_size 1000; active_connection_id_limit 1.
            ("0a0115", "too large"), ("030243e8", "too small"), ("0e0101", "too few"),
            // Of a server only: stateless_reset_token, original_destination_connection_id.
            ("0210" + String(repeating: "11", count: 16), "a reset token"), ("00083131313131313131", "an original ID"),
            ("0a05", "cut short"),
        ])
    func transportParameters(extra: String, name: String) async throws {
        try await withServer { service, peer in
            let outcome = try await peer.attempt(service.port, ["parameters": .text(extra)])
            #expect(outcome.end?.code == 0x08, "\(name): \(outcome)")
            #expect(await service.counters().handshakesFailed == 1)
        }
    }
}
