import ArgumentParser
import Foundation
import Logging
import LonglineControl
import LonglineServer
import LonglineSettings
import ServiceLifecycle
import UnixSignals

/// Reads configuration, certificate and token keys again on SIGHUP.
///
/// A configuration is applied as a whole or not at all: what may fail is tried before the first change is made. Certificate and key
/// alone may stay as they were: those that are not good now keep nothing else waiting. What needs a restart is named in the log.
struct ServerReloader: Service, CustomStringConvertible {
    let server: LonglineServer
    /// Has the same certificate; nil: there is no control layer.
    let control: LonglineControl?
    /// The signals since before the settings were read: one that came while the server started waits here.
    let hangUps: UnixSignalsSequence
    let invocation: ServerInvocation
    /// The settings that the server started with.
    let settings: ResolvedSettings
    /// What the files held that the server read then.
    let files: StartFiles
    let certificate: CertificateFiles?
    let tokenKeys: TokenKeyFiles
    /// What is printed when the server can be talked to, by clients and by signals.
    let announcement: String
    let logger: Logger

    /// The service group writes this into its log: nothing of the settings or the environment, which may hold a secret.
    var description: String { "ServerReloader" }

    func run() async throws {
        var running = settings.entries
        var announcement = announcement
        do { announcement += try await control?.announcement() ?? "" } catch {
            // Nobody is told that it is ready. The control layer ends the server, and says why.
            try? await gracefulShutdown()
            return
        }
        do { try Output.write(announcement.utf8) } catch {
            // Clients are served all the same.
            logger.warning("where the server listens was not printed", metadata: ["error": "\(error)"])
        }
        ServiceManager.tell(ServiceManager.ready)
        for await _ in hangUps.cancelOnGracefulShutdown() {
            await reload(&running)
        }
    }

    /// - Parameter running: what is in force.
    private func reload(_ running: inout [SettingKey: ResolvedSettings.Entry]) async {
        let outcome = invocation.evaluate()
        if let command = outcome.command {
            await apply(command, outcome.settings, &running)
        } else {
            for problem in outcome.problems {
                logger.error("configuration not reloaded, the old one stays", metadata: ["problem": "\(problem)"])
            }
            if let error = outcome.commandLineError {
                let message = ServerCommand.message(for: error)
                logger.error("configuration not reloaded, the old one stays", metadata: ["problem": "\(message)"])
            }
            // Files that were replaced count all the same: nothing says where to look for others.
            reloadCertificate()
        }
        // What goes wrong is in the log already.
        try? await server.reloadTokenKeys()
    }

    private func apply(
        _ command: ServerCommand, _ settings: ResolvedSettings, _ running: inout [SettingKey: ResolvedSettings.Entry]
    ) async {
        var changed = ServerSettings.catalogue.settings.filter {
            settings.entries[$0.key]?.value != running[$0.key]?.value
        }
        // A certificate of its own takes the place of the development certificate, or the other way round, at a start only.
        let swapsKind = (command.certificatePaths == nil) != (certificate == nil)
        let pair = [SettingKey("certificate"), SettingKey("key")]
        func isApplied(_ setting: Setting) -> Bool {
            setting.isReloadable && !(swapsKind && pair.contains(setting.key))
        }
        let changedFiles = files.changed(settings).filter { file in !changed.contains { $0.key == file.key } }
        for setting in changed.filter({ !isApplied($0) }) + changedFiles {
            logger.warning("setting needs a restart", metadata: ["setting": "\(setting.key)"])
        }
        changed.removeAll { !isApplied($0) }

        do {
            let limits = try command.limits.limits()
            let access = try command.controlOptions.access.settings()
            _ = try TokenKeyFiles.keys(in: command.tokenKeys.tokenKey)
            try server.reload(limits: limits)
            // Its options were checked with the command's others.
            try control?.reload(access)
        } catch {
            logger.error("configuration not reloaded, the old one stays", metadata: ["problem": "\(error)"])
            // As above.
            reloadCertificate()
            return
        }
        if !reloadCertificate(from: swapsKind ? nil : command.certificatePaths) {
            // Not in force: the next reload tries them again.
            changed.removeAll { pair.contains($0.key) }
        }
        tokenKeys.paths = command.tokenKeys.tokenKey
        command.logs.applyLevel()
        for setting in changed { running[setting.key] = settings.entries[setting.key] }
        for warning in settings.warnings { logger.warning("\(warning)") }
        if let warning = command.accessWarning(settings, running: running) { logger.warning("\(warning)") }
        let names = changed.map { "\($0.key)" }.joined(separator: ", ")
        logger.notice("configuration reloaded", metadata: ["changed": "\(names.isEmpty ? "nothing" : names)"])
    }

    /// Reads certificate and key again. What can't be used changes nothing, and is named in the log.
    /// - Parameter paths: where they are from now on, if they can be used; nil: where they were.
    /// - Returns: whether they are in use now.
    @discardableResult
    private func reloadCertificate(from paths: CertificateFiles.Paths? = nil) -> Bool {
        let before = certificate?.paths
        if let paths { certificate?.paths = paths }
        do {
            try server.reloadCertificate()
            try control?.reloadCertificate()
            return true
        } catch {
            logger.error("certificate not reloaded", metadata: ["error": "\(error)"])
        }
        if let before, let paths, paths != before {
            certificate?.paths = before
            // Server and control layer have the same one: the first of them may have taken the other.
            reloadCertificate()
        }
        return false
    }
}
