import ArgumentParser
import Foundation
import LonglineKeys
import LonglineServer
import LonglineSettings
import LonglineStore
import QUICEngine

/// What trying alone tells: whether a server can be made of the settings.
///
/// Files are read and addresses taken apart, as a server does when it starts; nothing is written, and nobody is asked.
struct ConfigurationTrial {
    private let command: ServerCommand
    private let settings: ResolvedSettings
    /// Settings about which something was said, also before.
    private var broken: Set<SettingKey>
    /// What is wrong, each with its place.
    private(set) var problems: [SettingProblem] = []
    /// What a server starts with all the same, though somebody should know.
    private(set) var warnings: [SettingProblem] = []

    /// Tries everything.
    /// - Parameter broken: settings that have a problem already, and are not tried.
    init(_ command: ServerCommand, _ settings: ResolvedSettings, without broken: Set<SettingKey>) {
        self.command = command
        self.settings = settings
        self.broken = broken
        dataFolder()
        certificate()
        tokenKeys()
        authorization()
        webhooks()
        access()
    }

    private mutating func dataFolder() {
        let path = command.data
        attempt("data") {
            guard !path.isEmpty else { throw ValidationError("the value is empty.") }
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue else {
                return
            }
            throw ValidationError("\(path) is a file, and has to be a folder or not there yet.")
        }
    }

    private mutating func certificate() {
        guard let paths = command.certificatePaths, isWhole("certificate", "key") else { return }
        attempt("certificate") {
            guard try ServerCommand.text(ofFile: paths.certificate).contains("-----BEGIN CERTIFICATE-----") else {
                throw ValidationError("\(paths.certificate) holds no certificate in PEM.")
            }
        }
        attempt("key") {
            try SecretFile.check(paths.key, "--key", readers: .group)
            guard try ServerCommand.text(ofFile: paths.key).contains("PRIVATE KEY-----") else {
                throw ValidationError("\(paths.key) holds no private key in PEM.")
            }
        }
        guard isWhole("certificate", "key") else { return }
        var warning: String?
        attempt("certificate") {
            let credentials = try CertificateFiles(paths).credentials()
            _ = try TLSServerContext(credentials: credentials, applicationProtocols: ["longline"])
            // Clients that pin its key may believe it all the same.
            warning = try credentials.validity().warning(at: WallClock.milliseconds() / 1_000)
        }
        guard let warning else { return }
        let origin = settings.entries[SettingKey("certificate")]?.origin
        warnings.append(SettingProblem(origin, key: "certificate", "the certificate \(warning)"))
    }

    private mutating func tokenKeys() {
        let options = command.tokenKeys
        for path in options.tokenKey {
            attempt("token-key") {
                do { _ = try TokenKeyFiles.keys(in: [path]) } catch { throw ValidationError("\(path): \(error)") }
            }
        }
        for (index, set) in options.keySets.enumerated() {
            attempt("jwks") {
                if TokenKeyOptions.isAddress(set) {
                    // An address may have a secret in it.
                    do { _ = try KeySetAddress(url: set) } catch {
                        throw ValidationError("item \(index + 1): \(error)")
                    }
                } else {
                    let bytes = Array(try ServerCommand.text(ofFile: set).utf8)
                    do { _ = try JSONWebKeySet(json: bytes) } catch { throw ValidationError("\(set): \(error)") }
                }
            }
        }
        if let authorities = options.authorities {
            attempt("jwks-ca") { try Self.authorities(in: authorities) }
        }
    }

    private mutating func authorization() {
        let options = command.authorization
        if isWhole("authorize.url"), let warning = command.authorizationWarning(settings) { warnings.append(warning) }
        guard let url = options.authorizeURL else { return }
        attempt("authorize.url") { _ = try HTTPAuthorizationPolicy(url: url) }
        if let file = options.authorizeCA { attempt("authorize.ca") { try Self.authorities(in: file) } }
        if let file = options.authorizeTokenFile {
            attempt("authorize.token-file") { _ = try AuthorizationOptions.token(inFile: file) }
        }
        if let text = settings.entries[SettingKey("authorize.token")]?.value.items.first {
            attempt("authorize.token") {
                _ = try AuthorizationOptions.token(text, from: AuthorizationOptions.tokenVariable)
            }
        }
    }

    private mutating func webhooks() {
        let options = command.webhookOptions
        let served = command.tenants
        attempt("webhooks") {
            guard let webhooks = try options.webhooks(journalPath: "") else { return }
            try webhooks.check()
            for tenant in webhooks.tenants.keys where !served.contains(tenant) {
                throw ValidationError("the tenant \(tenant) is not served.")
            }
        }
    }

    private mutating func access() {
        guard isWhole("host", "port", "control", "access-point") else { return }
        if let warning = command.accessWarning(settings) { warnings.append(warning) }
    }

    /// - Throws: when the file holds no authorities that can be used.
    static func authorities(in file: String) throws {
        let trust = HTTPTrust.authorities(pem: try ServerCommand.text(ofFile: file))
        do { _ = try KeySetAddress(url: "https://localhost", trust: trust) } catch {
            throw ValidationError("\(file): \(error)")
        }
    }

    private func isWhole(_ keys: String...) -> Bool { keys.allSatisfy { !broken.contains(SettingKey($0)) } }

    /// Notes what is wrong with a setting, once.
    private mutating func attempt(_ name: String, _ body: () throws -> Void) {
        let key = SettingKey(name)
        guard !broken.contains(key) else { return }
        do { try body() } catch {
            let text = (error as? ValidationError).map(\.message) ?? "\(error)"
            problems.append(
                SettingProblem(
                    settings.entries[key]?.origin, key: name,
                    ServerInvocation.words(text, of: key, ServerSettings.catalogue)))
            broken.insert(key)
        }
    }
}
