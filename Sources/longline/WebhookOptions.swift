import ArgumentParser
import Foundation
import LonglineServer
import LonglineWire

/// Where users without a connection are told of messages.
struct WebhookOptions: ParsableArguments {
    @Option(
        name: .customLong("webhooks"),
        help: """
            A JSON file that names the endpoints to tell of messages to users without a connection, and the secrets that \
            requests are signed with; nobody else may read it. docs/server.md has an example.
            """)
    var file: String?

    /// One endpoint, as the file has it. What is left out has its default.
    private struct Endpoint: Decodable {
        var url: String
        var keyID: String?
        var secret: String
        var authorities: String?
        var payload: Bool?
        var background: Bool?
        var cancel: Bool?
        var delay: Double?
        var deadline: Double?
        var maximumAge: Double?
        var maximumInFlight: Int?
        var maximumRoomMembers: Int?
        var breakAfter: Int?
        var breakTime: Double?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case url, secret, authorities, payload, background, cancel, delay, deadline
            case keyID = "key"
            case maximumAge = "maximum_age"
            case maximumInFlight = "maximum_in_flight"
            case maximumRoomMembers = "maximum_room_members"
            case breakAfter = "break_after"
            case breakTime = "break_time"
        }

        func settings() throws -> WebhookSettings {
            guard let secret = Self.bytes(secret) else {
                throw ValidationError("--webhooks: a secret has to be 16 bytes or more in hexadecimal.")
            }
            var settings = WebhookSettings(url: url, key: WebhookKey(id: keyID ?? "1", secret: secret))
            if let authorities {
                settings.trust = .authorities(pem: try ServerCommand.text(ofFile: authorities))
            }
            settings.includesPayload = payload ?? settings.includesPayload
            settings.notifiesBackground = background ?? settings.notifiesBackground
            settings.tellsCancels = cancel ?? settings.tellsCancels
            settings.delay = try Self.duration(delay) ?? settings.delay
            settings.deadline = try Self.duration(deadline) ?? settings.deadline
            settings.maximumAge = try Self.duration(maximumAge) ?? settings.maximumAge
            settings.breakTime = try Self.duration(breakTime) ?? settings.breakTime
            settings.maximumInFlight = maximumInFlight ?? settings.maximumInFlight
            settings.maximumRoomMembers = maximumRoomMembers ?? settings.maximumRoomMembers
            settings.breakAfter = breakAfter ?? settings.breakAfter
            return settings
        }

        private static func duration(_ seconds: Double?) throws -> Duration? {
            guard let seconds else { return nil }
            guard seconds >= 0, seconds <= 30 * 86_400 else {
                throw ValidationError("--webhooks: times are seconds, from 0 to 30 days.")
            }
            return .milliseconds(Int64(seconds * 1_000))
        }

        private static func bytes(_ text: String) -> [UInt8]? {
            let digits = text.compactMap(\.hexDigitValue)
            guard digits.count == text.count, digits.count >= 32, digits.count.isMultiple(of: 2) else { return nil }
            return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        }
    }

    private struct Endpoints: Decodable {
        var standard: Endpoint?
        var tenants: [String: Endpoint]?

        enum CodingKeys: String, CodingKey, CaseIterable {
            case standard = "default"
            case tenants
        }
    }

    /// What is mistyped would count for nothing otherwise.
    private static func refuseUnknownMembers(_ document: Any) throws {
        func check(_ object: Any?, _ known: [String], _ place: String) throws {
            guard let object = object as? [String: Any] else { return }
            for name in object.keys.sorted() where !known.contains(name) {
                throw ValidationError("--webhooks: there is no member '\(name)' in \(place).")
            }
        }
        let members = Endpoint.CodingKeys.allCases.map(\.rawValue)
        try check(document, Endpoints.CodingKeys.allCases.map(\.rawValue), "the file")
        guard let document = document as? [String: Any] else { return }
        try check(document["default"], members, "'default'")
        guard let tenants = document["tenants"] as? [String: Any] else { return }
        for (tenant, endpoint) in tenants { try check(endpoint, members, "the endpoint of tenant '\(tenant)'") }
    }

    /// The files that are read besides a file of endpoints; none where that can't be read itself.
    static func files(namedIn file: String) -> [String] {
        guard let text = try? Data(contentsOf: URL(fileURLWithPath: file)),
            let endpoints = try? JSONDecoder().decode(Endpoints.self, from: text)
        else { return [] }
        let tenants = endpoints.tenants ?? [:]
        return [endpoints.standard?.authorities].compactMap(\.self) + tenants.values.compactMap(\.authorities)
    }

    /// - Parameter journalPath: where notifications wait.
    func webhooks(journalPath: String) throws -> WebhookConfiguration? {
        guard let file else { return nil }
        let endpoints: Endpoints
        do {
            try SecretFile.check(file, "--webhooks", readers: .none)
            let text = try Data(contentsOf: URL(fileURLWithPath: file))
            endpoints = try JSONDecoder().decode(Endpoints.self, from: text)
            try Self.refuseUnknownMembers(try JSONSerialization.jsonObject(with: text))
        } catch let error as ValidationError {
            throw error
        } catch {
            // The decoder's own words may quote the file.
            throw ValidationError(
                "--webhooks: \(file) can't be read, or is not the JSON that docs/server.md describes.")
        }
        guard endpoints.standard != nil || endpoints.tenants?.isEmpty == false else {
            throw ValidationError("--webhooks: \(file) names no endpoint.")
        }
        var configuration = WebhookConfiguration(journalPath: journalPath)
        configuration.standard = try endpoints.standard?.settings()
        for (tenant, endpoint) in endpoints.tenants ?? [:] {
            configuration.tenants[try Name.parse("--webhooks", tenant, TenantID.init)] = try endpoint.settings()
        }
        return configuration
    }
}
