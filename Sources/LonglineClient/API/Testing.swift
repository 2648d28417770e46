import LonglineWire

/// Hooks for tests and demonstrations, behind `@_spi(Testing) import LonglineClient`. No app needs them.
@_spi(Testing)
extension LonglineClient {
    /// From now on nothing this client sends arrives, and nothing reaches it, without a word to anyone: as if the device
    /// had gone into a tunnel. It lasts until ``endOutage()``, for new links too. The client notices as it would there.
    public func simulateOutage() async throws {
        try await run { driver in
            driver.isInOutage = true
            driver.current?.mobile?.goSilent()
        }
    }

    /// The network is back, and the client is told: it leaves the silent link, and returns at once on a new one.
    public func endOutage() async throws {
        try await run { driver in
            guard driver.isInOutage else { return }
            driver.isInOutage = false
            guard let link = driver.current else { return driver.connectNow() }
            driver.abandonPath(of: link, .pathGone("the network came back"))
        }
    }
}
