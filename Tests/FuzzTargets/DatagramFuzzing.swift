import LonglineTestKit
import QUICEngine

/// A client connects while datagrams are injected. The input is a list of steps: what to inject, and how much of the honest
/// exchange to let happen in between.
///
/// The first byte's bits say whether the server asks for a Retry, whether the client comes back with 0-RTT data, which is
/// changed and repeated like everything else, and whether traces are written.
///
/// Whoever proved no address never gets more than three times what it sent (RFC 9000 section 8.1). 0-RTT data is accepted
/// once, however often its flight comes. As long as only strangers took part, the honest connection works in the end.
final class DatagramFuzzing {
    private enum Step: UInt8, CaseIterable {
        case bytes, longHeader, shortHeader, changed, repeated, toClient, wait, write
    }

    private static let maximumSteps = 48

    private let world: FuzzWorld
    private let connection: QUICEngineConnection
    private var input: FuzzInput
    /// What each side sent the other, with the time it arrives.
    private var fromClient: [(bytes: [UInt8], arrives: QUICInstant)] = []
    private var fromServer: [[UInt8]] = []
    private var bytesFrom: [QUICSocketAddress: Int] = [:]
    private var bytesTo: [QUICSocketAddress: Int] = [:]
    /// Somebody on the path took part, who can prevent a handshake (RFC 9000 section 21.1).
    private var wasOnPath = false

    static func run(_ input: FuzzInput) throws { try DatagramFuzzing(input).run() }

    private init(_ input: FuzzInput) throws {
        self.input = input
        let flags = self.input.byte()
        let comesBack = flags & 2 != 0
        world = try FuzzWorld(
            seed: UInt64(flags), alwaysRetry: flags & 1 != 0, givesTickets: comesBack, traces: flags & 4 != 0)
        connection = try comesBack ? world.comeBack(sending: 2500) : world.connect()
        world.network.filter = { [unowned self] bytes, path in
            if path.local == FuzzWorld.clientAddress {
                fromClient.append((bytes, world.network.now.advanced(byNanoseconds: 10_000_000)))
            } else if path.remote == FuzzWorld.clientAddress {
                fromServer.append(bytes)
            } else {
                // A challenge to a stranger is not for the client, whose answer would prove the stranger's address.
                bytesTo[path.remote, default: 0] += bytes.count
            }
            return true
        }
    }

    private func run() throws {
        defer { world.network.filter = nil }
        world.simulation.settle()
        for _ in 0..<Self.maximumSteps where !input.isEmpty {
            guard let step = Step(rawValue: input.byte() % UInt8(Step.allCases.count)) else { continue }
            take(step)
            try checkAmplification()
        }
        world.simulation.run(for: .seconds(8))
        try checkAmplification()
        guard world.server.counters.earlyDataAccepted <= 1 else {
            throw FuzzFinding("0-RTT data was accepted \(world.server.counters.earlyDataAccepted) times")
        }
        if !wasOnPath { try checkHonestConnection() }
        try world.checkNothingStays()
    }

    private func take(_ step: Step) {
        switch step {
        case .bytes: inject(input.bytes(Int(input.byte()) + 1), from: stranger())
        case .longHeader: injectLongHeader()
        case .shortHeader: injectShortHeader()
        case .changed: injectChanged()
        case .repeated: injectRepeated()
        case .toClient: injectToClient()
        case .wait: world.simulation.run(for: .milliseconds(UInt64(1) << UInt64(input.byte() % 14)))
        case .write:
            world.send(input.number() % 4000, on: connection, bidirectional: input.byte() & 1 == 0, finish: true)
            world.simulation.run(for: .milliseconds(5))
        }
    }

    private func stranger() -> QUICSocketAddress {
        let choice = input.byte()
        return QUICSocketAddress(ipv4: (10, 9, choice & 3, 1), port: choice & 4 == 0 ? 4444 : 5555)
    }

    private func inject(_ bytes: [UInt8], from source: QUICSocketAddress) {
        bytesFrom[source, default: 0] += bytes.count
        let path = QUICPath(local: FuzzWorld.serverAddress, remote: source)
        let ecn = ECNCodepoint(rawValue: UInt8(bytes.count & 3)) ?? .notECT
        bytes.withUnsafeBytes { world.server.receive($0, path: path, ecn: ecn, now: world.network.now) }
        world.simulation.settle()
    }

    /// A long header as it should be, or nearly, in a datagram of full size.
    private func injectLongHeader() {
        let source = stranger()
        let first = input.byte()
        let versions: [[UInt8]] = [[0, 0, 0, 1], [0x6b, 0x33, 0x43, 0xcf], [0x1a, 0x2a, 0x3a, 0x4a], [0, 0, 0, 0]]
        var bytes: [UInt8] = [first | 0x80] + versions[Int(input.byte() & 3)]
        for _ in 0..<2 {
            let length = input.byte() % 24
            bytes.append(length)
            bytes += input.byte() & 1 == 0 ? [UInt8](repeating: 0x33, count: Int(length)) : input.bytes(Int(length))
        }
        bytes += input.bytes(Int(input.byte()))
        let size = input.byte() & 3 == 0 ? bytes.count : 1200 + input.number() % 300
        bytes += [UInt8](repeating: 0, count: max(0, size - bytes.count))
        inject(bytes, from: source)
    }

    /// A packet for a connection that exists, under keys that nobody has.
    private func injectShortHeader() {
        let source = stranger()
        let known = fromClient.last { $0.bytes.first.map { $0 & 0x80 == 0 } ?? false }?.bytes
        var bytes = known.map { Array($0.prefix(20)) } ?? [0x40]
        bytes += input.bytes(Int(input.byte()))
        inject(bytes, from: source)
    }

    /// A datagram of the client with some bytes changed, as somebody on the path does.
    private func injectChanged() {
        let source = input.byte() & 1 == 0 ? stranger() : FuzzWorld.clientAddress
        guard !fromClient.isEmpty else { return }
        let chosen = fromClient[fromClient.count - 1 - Int(input.byte()) % fromClient.count]
        if source == FuzzWorld.clientAddress || chosen.arrives >= world.network.now { wasOnPath = true }
        inject(changed(chosen.bytes), from: source)
    }

    private func changed(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int(input.byte() % 8) where !bytes.isEmpty {
            bytes[input.number() % bytes.count] ^= input.byte()
        }
        switch input.byte() & 7 {
        case 1: bytes = Array(bytes.prefix(input.number()))
        case 2: bytes += input.bytes(Int(input.byte()))
        case 3: bytes += bytes.prefix(max(0, 1452 - bytes.count))
        default: break
        }
        return bytes
    }

    private func injectRepeated() {
        let source = stranger()
        guard !fromClient.isEmpty else { return }
        let chosen = fromClient[fromClient.count - 1 - Int(input.byte()) % fromClient.count]
        if chosen.arrives >= world.network.now { wasOnPath = true }
        inject(chosen.bytes, from: source)
    }

    private func injectToClient() {
        wasOnPath = true
        let choice = input.byte()
        var bytes: [UInt8]
        if choice & 1 == 0 || fromServer.isEmpty {
            bytes = input.bytes(Int(input.byte()))
        } else {
            bytes = changed(fromServer[fromServer.count - 1 - Int(choice >> 1) % fromServer.count])
        }
        let path = QUICPath(local: FuzzWorld.clientAddress, remote: FuzzWorld.serverAddress)
        bytes.withUnsafeBytes { world.client.receive($0, path: path, ecn: .notECT, now: world.network.now) }
        world.simulation.settle()
    }

    private func checkAmplification() throws {
        for (address, sent) in bytesTo {
            guard sent <= 3 * bytesFrom[address, default: 0] else {
                throw FuzzFinding("\(address) sent \(bytesFrom[address, default: 0]) bytes and got \(sent)")
            }
        }
    }

    private func checkHonestConnection() throws {
        guard !connection.isClosed else {
            throw FuzzFinding("strangers ended a connection: \(String(describing: world.clientEnd))")
        }
        let before = world.echoed
        guard world.send(3000, on: connection, bidirectional: true, finish: true) != nil else { return }
        guard world.simulation.run(for: .seconds(20), until: { self.world.echoed >= before + 3000 }) else {
            throw FuzzFinding("strangers stopped a connection: \(world.echoed - before) of 3000 bytes came back")
        }
    }
}
