import LonglineWire

/// Hooks for tests and demonstrations, behind `@_spi(Testing) import LonglineClient`. No app needs them.
@_spi(Testing)
extension LonglineClient {
    /// From now on the present link sends nothing and hears nothing, without a word to anyone: as if the device had
    /// gone into a tunnel. The client itself notices as it would there, or is told by ``endOutage()``.
    public func simulateOutage() async throws {
        try await run { driver in driver.current?.mobile?.goSilent() }
    }

    /// The network is back: the silent link is left, and the client returns at once on a new one.
    public func endOutage() async throws {
        try await run { driver in
            guard let link = driver.current else { return driver.connectNow() }
            driver.abandonPath(of: link, reason: "the network came back")
        }
    }
}
