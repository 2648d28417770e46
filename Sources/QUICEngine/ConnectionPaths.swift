import CQUICShim

/// Where a connection may go.
///
/// ```
/// proven --migrate--> trying --validated--> proven there
///    ^                  |  \--migrate--> trying elsewhere
///    +---- failed ------+
/// ```
/// ngtcp2 sends to a new path at once and stays there even if it doesn't answer; going back is done here.
extension QUICEngineConnection {
    private static let maxKnownPaths = 8

    /// Client: moves to another local address. `pathValidated` and `pathChanged`, or `pathFailed`, follow; after a
    /// failure the connection goes back to the address that last worked, if it still is on the new one. Throws
    /// `migrationNotPossible`, `closed`.
    public func migrate(to local: QUICSocketAddress, now: QUICInstant) throws(QUICError) {
        let shim = try alive()
        advance(to: now)
        guard !isServer else {
            throw QUICError(
                .migrationNotPossible, "Only a client can move", advice: "Let the client call migrate.")
        }
        guard handshake != nil, llq_conn_peer_forbids_migration(shim) == 0 else {
            throw QUICError(
                .migrationNotPossible,
                handshake == nil ? "The handshake isn't complete" : "The server forbids active migration",
                advice: "Close and connect again from the new address.")
        }
        var path = QUICPath(local: local, remote: lastPath.remote).shim
        let result = llq_conn_migrate(shim, &path, self.now.nanoseconds)
        guard result == 0 else {
            throw QUICError(
                .migrationNotPossible, "The connection can't move now", cause: errorName(result),
                advice: "Try again after handshakeConfirmed, or when the server has sent connection IDs; else connect "
                    + "again from the new address.")
        }
        afterInput()
    }

    /// The outcome of a path validation.
    func pathAnswered(_ path: QUICPath, valid: Bool) {
        emit(valid ? .pathValidated(path) : .pathFailed(path))
        guard !isServer, let shim, path == QUICPath(llq_conn_path(shim)) else { return }
        if valid {
            provenLocal = path.local
        } else if provenLocal != path.local {
            var back = QUICPath(local: provenLocal, remote: path.remote).shim
            // If it can't go back, it has lost its way until the application finds another.
            _ = llq_conn_migrate(shim, &back, now.nanoseconds)
            noticePath(shim)
            // Writing may be what found the path lost, and this comes after it.
            expiry = nil
            endpoint.schedule(self)
        }
    }

    func noticePath(_ shim: OpaquePointer) {
        let path = QUICPath(llq_conn_path(shim))
        guard path != lastPath else { return }
        lastPath = path
        // What was learned of the other path's size counts no more.
        pathFollowUp = PathFollowUp()
        endpoint.release(self)
        emit(.pathChanged(path))
    }

    /// The peer asks whether this side is where it seems to be.
    func wasChallenged() {
        guard !isServer, let shim else { return }
        pathFollowUp.challenged(now: now, probeTimeout: llq_conn_pto(shim))
    }

    /// Whether a datagram from this path may be read.
    func admits(_ path: QUICPath) -> Bool {
        guard path != lastPath, let policy = endpoint.configuration.server?.pathPolicy, isServer,
            !knownPaths.contains(path)
        else { return true }
        guard policy(path, lastPath) else { return false }
        if knownPaths.count >= Self.maxKnownPaths { knownPaths.removeFirst() }
        knownPaths.append(path)
        return true
    }
}
