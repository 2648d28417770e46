internal import NIOCore
internal import QUICEngine

/// Changes of path.
///
/// A change that a newer one takes the place of while the engine is on its path already is overtaken:
/// ```
///  begun --newer change--> overtaken --the newer begins, or the path fails--> gone
///    ^                      |     \--validated--> current
///    +--- the newer fails --+
/// ```
extension ClientPaths {
    /// A change of path under way.
    final class Change {
        /// nil: nobody waits, or has been told.
        var promise: EventLoopPromise<Void>?
        /// What was asked for; port 0 leaves the choice to the system.
        let local: SocketAddress
        var port: UDPPort?
        var begun = false
        var validated = false
        var changed = false
        /// The interface takes no packets of the size that QUIC needs.
        var isTooSmall = false

        init(to local: SocketAddress, promise: EventLoopPromise<Void>?) {
            self.local = local
            self.promise = promise
        }
    }

    func change(to local: SocketAddress, promise: EventLoopPromise<Void>?) {
        supersede()
        let change = Change(to: local, promise: promise)
        self.change = change
        // A connection that has no socket yet starts from the newest address: its own would be abandoned at once.
        openPort(on: local) { result in
            switch result {
            case .success(let port):
                guard self.change === change else { return self.driver.remove(port) }
                change.port = port
                self.resumeChange()
            case .failure(let error):
                guard self.change === change else { return }
                self.goBack()
                promise?.fail(
                    QUICTransportError(
                        .pathChangeFailed, "no socket could be bound to \(local)", cause: SystemError.words(error),
                        advice: "Migrate to an address that this machine has."))
                self.race?.endIfImpossible()
            }
        }
    }

    private func supersede() {
        guard let old = change else { return }
        change = nil
        old.promise?.fail(
            QUICTransportError(
                .superseded, "a newer change of path took this one's place", advice: "Wait for the newer one."))
        old.promise = nil
        guard let port = old.port, port !== current else { return }
        if old.begun, phase == .confirmed { overtaken = old } else { retire(port) }
    }

    /// A change couldn't begin: what it overtook goes on, whose path the engine is on.
    private func goBack() {
        change = overtaken
        overtaken = nil
    }

    /// Goes on with a change as far as the phase allows.
    func resumeChange() {
        guard let change, let port = change.port, !change.begun, phase != .starting, phase != .ended else { return }
        guard reaches(port) else { return refuse(change) }
        switch phase {
        case .starting, .completed, .ended: break
        case .handshaking:
            change.begun = true
            wanted = change.local
            restart(on: port)
        case .confirmed:
            change.begun = true
            migrate(change, to: port)
        }
    }

    private func migrate(_ change: Change, to port: UDPPort) {
        guard let engine = connection.engine else { return }
        do throws(QUICError) {
            try engine.migrate(to: port.identity, now: .now())
            if let port = overtaken?.port { retire(port) }
            overtaken = nil
            driver.needsTick()
        } catch {
            goBack()
            change.promise?.fail(connection.worded(error))
            driver.remove(port)
        }
    }

    /// Whether the server has an address of the socket's family. A handshake may go to any of the host's, a connection stays with the
    /// one that it has.
    private func reaches(_ port: UDPPort) -> Bool {
        if phase != .handshaking { return connection.engine?.path.remote.isIPv6 == port.identity.isIPv6 }
        return addresses.contains { QUICSocketAddress($0)?.isIPv6 == port.identity.isIPv6 }
    }

    private func refuse(_ change: Change) {
        goBack()
        if let port = change.port { driver.remove(port) }
        change.promise?.fail(
            QUICTransportError(
                .pathChangeFailed, "the server's address is of another family than \(change.local)",
                advice: "The old path stays in use; connect again from the new address."))
        race?.endIfImpossible()
    }

    /// The change that has begun on a path, and the socket it goes to.
    private func begun(on path: QUICPath) -> (change: Change, port: UDPPort)? {
        guard phase == .confirmed else { return nil }
        for case let change? in [change, overtaken] where change.begun && change.port?.identity == path.local {
            if let port = change.port { return (change, port) }
        }
        return nil
    }

    func pathAnswered(_ path: QUICPath, _ mark: (Change) -> Void) {
        guard let (change, port) = begun(on: path) else { return }
        mark(change)
        guard change.validated, change.changed else { return }
        if let old = current, old !== port { retire(old) }
        current = port
        finish(change)
    }

    func pathFailed(_ path: QUICPath) {
        guard let (change, port) = begun(on: path) else { return }
        remove(change)
        driver.remove(port)
        change.promise?.fail(
            QUICTransportError(
                .pathChangeFailed,
                change.isTooSmall
                    ? "the new path takes no packets of 1,200 bytes, which QUIC needs" : "the new path did not answer",
                advice: "The old path stays in use; try another."))
    }

    private func remove(_ change: Change) {
        if change === overtaken { overtaken = nil } else { self.change = nil }
    }

    func finish(_ change: Change) {
        remove(change)
        change.promise?.succeed(())
    }

    func rebind(promise: EventLoopPromise<Void>?) {
        guard let current else {
            promise?.fail(
                QUICTransportError(.pathChangeFailed, "there is no socket yet", advice: "Try after the first packet."))
            return
        }
        current.rebind().assumeIsolated().whenComplete { result in
            switch result {
            case .success: promise?.succeed(())
            case .failure(let error as QUICTransportError): promise?.fail(error)
            case .failure(let error):
                promise?.fail(
                    QUICTransportError(
                        .pathChangeFailed, "no socket could be bound to a new port", cause: SystemError.words(error),
                        advice: "The old one stays in use; migrate to an address that this machine has."))
            }
        }
    }
}
