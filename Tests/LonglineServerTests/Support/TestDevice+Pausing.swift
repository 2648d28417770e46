import LonglineSession
import LonglineWire
import Synchronization

@testable import LonglineServer

extension TestDevice {
    /// Connects; while the server has read the device's channels, and not taken them in yet, `body` runs.
    func connect(pausing store: FaultyStore, _ server: TestServer, _ body: () async throws -> Void) async throws {
        let (read, hasRead) = AsyncStream.makeStream(of: Void.self)
        let (go, mayGo) = AsyncStream.makeStream(of: Void.self)
        store.set { faults in
            faults.afterEntitlements = {
                hasRead.finish()
                for await _ in go {}
            }
        }
        let token = try await server.issuer.token(user.description, device.description)
        try await send([(connectFrame(.token(token)), .control)])
        for await _ in read {}
        do { try await body() } catch {
            mayGo.finish()
            throw error
        }
        mayGo.finish()
        _ = try await next { if case .connected(let connected) = $0 { connected } else { nil } }
    }
}
