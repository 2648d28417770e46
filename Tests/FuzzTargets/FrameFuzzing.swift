import LonglineTestKit
import QUICEngine

/// A peer with the keys writes what it likes: the plaintexts of its packets are changed before they are protected. The first
/// byte of the input chooses the victim and the level of the packets, and whether traces are written; then comes one edit a
/// packet.
///
/// The victim closes the connection or goes on; afterwards it keeps nothing, and it still serves another client.
final class FrameFuzzing {
    private enum Level: UInt8, CaseIterable { case initial, handshake, oneRTT, zeroRTT }

    private enum Edit: UInt8, CaseIterable { case replaceAll, replaceBeginning, change, pass }

    private static let maximumEdits = 40

    private let world: FuzzWorld
    private var input: FuzzInput
    private let victimIsServer: Bool
    private let level: Level
    private var isActive = false
    private var edits = 0

    static func run(_ input: FuzzInput) throws { try FrameFuzzing(input).run() }

    private init(_ input: FuzzInput) throws {
        self.input = input
        let flags = self.input.byte()
        victimIsServer = flags & 1 == 0
        level = Level(rawValue: flags >> 1 & 3) ?? .oneRTT
        world = try FuzzWorld(
            seed: UInt64(flags >> 3 & 0xf), givesTickets: level == .zeroRTT, traces: flags & 0x80 != 0)
        let attacker = victimIsServer ? world.client : world.server
        attacker.rewrite = { [unowned self] in rewrite($0, header: $1) }
    }

    private func run() throws {
        // Only clients send 0-RTT packets; a server that gave a ticket is edited later.
        isActive = level == .initial || level == .handshake || (level == .zeroRTT && victimIsServer)
        let client = try level == .zeroRTT ? world.comeBack(sending: 4000) : world.connect()
        let before = world.confirmed
        world.simulation.run(for: .seconds(3)) { self.world.confirmed > before }
        // Until a packet can be lost only by being changed.
        world.simulation.run(for: .milliseconds(500))
        let goesOn = level == .oneRTT || (level == .zeroRTT && !victimIsServer)
        if let attacker = victimIsServer ? client : world.accepted.last, goesOn {
            isActive = true
            sendEdited(by: attacker)
        }
        isActive = false
        world.simulation.run(for: .seconds(3))
        if victimIsServer { try checkServes() }
        try world.checkNothingStays()
    }

    /// Each packet starts as one with stream data, so that there is room.
    private func sendEdited(by attacker: QUICEngineConnection) {
        while !input.isEmpty, edits < Self.maximumEdits, !attacker.isClosed {
            let before = edits
            world.send(1100, on: attacker, bidirectional: edits & 1 == 0, finish: edits & 2 == 0)
            world.simulation.settle()
            world.simulation.run(for: .milliseconds(25))
            if edits == before {
                attacker.ping(now: world.network.now)
                world.simulation.run(for: .milliseconds(250))
                if edits == before { return }
            }
        }
    }

    private func rewrite(_ plaintext: UnsafeMutableRawBufferPointer, header: UnsafeRawBufferPointer) {
        guard isActive, !input.isEmpty, edits < Self.maximumEdits, let first = header.first, isMeant(first) else {
            return
        }
        edits += 1
        switch Edit(rawValue: input.byte() & 3) ?? .pass {
        case .replaceAll:
            let frames = input.bytes(min(plaintext.count, input.number() % 1200))
            for index in plaintext.indices { plaintext[index] = index < frames.count ? frames[index] : 0 }
        case .replaceBeginning:
            let frames = input.bytes(min(plaintext.count, Int(input.byte())))
            for index in frames.indices { plaintext[index] = frames[index] }
        case .change:
            for _ in 0..<Int(input.byte() % 8) where !plaintext.isEmpty {
                plaintext[input.number() % plaintext.count] = input.byte()
            }
        case .pass: break
        }
    }

    private func isMeant(_ first: UInt8) -> Bool {
        switch level {
        case .initial: first & 0xb0 == 0x80
        case .handshake: first & 0xb0 == 0xa0
        case .oneRTT: first & 0x80 == 0
        case .zeroRTT: victimIsServer ? first & 0xb0 == 0x90 : first & 0x80 == 0
        }
    }

    private func checkServes() throws {
        world.client.rewrite = nil
        let honest = try world.connect()
        let before = world.echoed
        world.simulation.run(for: .seconds(3)) { honest.handshake != nil }
        world.send(2000, on: honest, bidirectional: true, finish: true)
        guard world.simulation.run(for: .seconds(10), until: { self.world.echoed >= before + 2000 }) else {
            throw FuzzFinding("another client isn't served: \(world.server.counters)")
        }
    }
}
